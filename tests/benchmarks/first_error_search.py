"""Tokens to find the first error of wrong solutions: binary search against labelling every step and
against stopping at the first error.

python tests/benchmarks/first_error_search.py [problems]

The task is a chain of sums and products modulo 97; a solution writes the running value, a line a
step. The policy is simulated: it continues the value it sees and errs in each step with a fixed
probability. Every operation is one-to-one, so an error stays an error, and the first wrong line is
known. Sampling goes through the session, the batcher and the labellers that real policies use.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data.types import ModelUsage, Outcome, Problem, Sample, StepLabels, StopReason, Verdict
from search.base import SampleRequest, SampleResult, SearchResult, Session
from search.batcher import run_searches
from search.labellers.binary_search import BinarySearchConfig
from search.labellers.by_name import LabelSettings, bind_labeller, first_error
from search.labellers.monte_carlo import EveryStepConfig
from search.noise import uniform
from trainer.measures.statistics import variance_of_mean

MODULUS = 97
ROLLOUTS = 8
END = 0


def apply(operation: str, value: int) -> int:
    number = int(operation[1:])
    return (value + number if operation[0] == "+" else value * number) % MODULUS


def make_problem(steps: int, seed: int) -> Problem:
    """`prompt` is the start value and the operations, `answer` the lines of the right solution."""
    dice = random.Random(seed)
    value = dice.randrange(MODULUS)
    operations = [f"{dice.choice('+*')}{dice.randrange(2, MODULUS)}" for _ in range(steps)]
    prompt = f"{value} {' '.join(operations)}\n"
    lines: list[str] = []
    for operation in operations:
        value = apply(operation, value)
        lines.append(f"{value:02d}")
    return Problem(id=f"chain-{steps}-{seed}", prompt=prompt, answer="\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class SimulatedPolicy:
    """Implements `search.base.Engine` but for choices, which no labeller asks for. A token is a
    character; 0 ends a solution."""

    error_rate: float
    seed: int = 17
    context_length: int = 10_000
    end_token_id: int = END
    end_token_ids: frozenset[int] = frozenset({END})
    begin_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    encode_prompt = encode

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in token_ids if token != END)

    def step_ends(self, token_ids: Sequence[int]) -> list[int]:
        last = len(token_ids) - 1
        return [i for i, token in enumerate(token_ids) if token == ord("\n") or i == last]

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage:
        return ModelUsage(
            prompt_tokens=prefix_length, generated_tokens=sum(lengths), sequences=len(lengths)
        )

    def choice_batch(self, items: Any) -> Any:
        raise NotImplementedError

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]:
        return [self._answer(problem, request) for problem, request in items]

    def _answer(self, problem: str, request: SampleRequest) -> SampleResult:
        samples = tuple(self._sample(problem, request, i) for i in range(request.n))
        lengths = [len(sample.token_ids) for sample in samples]
        return SampleResult(samples=samples, usage=self.sample_usage(len(request.prefix), lengths))

    def _sample(self, problem: str, request: SampleRequest, i: int) -> Sample:
        prompt, *lines = self.decode(request.prefix).removesuffix("\n").split("\n")
        start, *operations = prompt.split(" ")
        value = int(lines[-1] if lines else start)
        written: list[str] = []
        for step in range(len(lines), len(operations)):
            value = apply(operations[step], value)
            dice = uniform(
                self.seed, problem, request.node, (request.first_index + i) * 1000 + step
            )
            if dice < self.error_rate:
                value = (value + 1 + int(dice / self.error_rate * (MODULUS - 1))) % MODULUS
            written.append(f"{value:02d}")
        ids = (*self.encode("\n".join(written)), END)
        steps = (0.0,) * len(written)
        return Sample(
            token_ids=ids,
            step_logprobs=steps,
            step_entropies=steps,
            stop_reason=StopReason.END_OF_SOLUTION,
        )


def verify(problem: Problem, solution: str) -> Verdict:
    """By the last line, as an answer is checked."""
    right = solution.split("\n")[-1] == problem.answer.split("\n")[-1]
    return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


def first_wrong_line(problem: Problem, row: StepLabels) -> int:
    lines, right = "".join(row.completions).split("\n"), problem.answer.split("\n")
    return next(i for i, (a, b) in enumerate(zip(lines, right, strict=True)) if a != b)


@dataclass(frozen=True, kw_only=True)
class Found:
    tokens: int  # generated, the solution itself not counted
    error: int | None
    truth: int


def measure(problems: Sequence[Problem], config: Any, error_rate: float) -> dict[str, Found]:
    """Of every problem whose one solution is wrong."""
    rows: dict[str, StepLabels] = {}
    label = bind_labeller(config)

    async def strategy(session: Session) -> SearchResult:
        labelled = await label(session)
        [rows[session.problem.id]] = labelled.rows
        return SearchResult(
            problem=session.problem, strategy="", nodes=(), snapshots=(), usage=session.usage
        )

    found: dict[str, Found] = {}
    settings = LabelSettings(max_new_tokens=1000).of_a_search()
    for result in run_searches(
        problems,
        strategy,
        engine=SimulatedPolicy(error_rate=error_rate),
        scorer=None,
        verify=verify,
        settings=settings,
    ):
        row = rows[result.problem.id]
        if row.labels[-1] == 0.0:
            solution = sum(map(len, row.completion_ids))
            found[result.problem.id] = Found(
                tokens=result.usage.policy.generated_tokens - solution,
                error=first_error(row),
                truth=first_wrong_line(result.problem, row),
            )
    return found


def ratio(first: Sequence[Found], second: Sequence[Found]) -> str:
    """Of the token sums, with the 95 % interval of a ratio of paired sums."""
    total = sum(f.tokens for f in second)
    value = sum(f.tokens for f in first) / total
    mean = total / len(second)
    residuals = [(a.tokens - value * b.tokens) / mean for a, b in zip(first, second, strict=True)]
    half = 1.959964 * math.sqrt(variance_of_mean(residuals))
    return f"{value:.3f} ± {half:.3f}"


def main() -> None:
    problems = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    common: dict[str, Any] = {"solutions": 1, "rollouts": ROLLOUTS, "hard_labels": True}
    methods = {
        "every step": EveryStepConfig(**common),
        "to first error": EveryStepConfig(**common, stop_at_first_error=True),
        "binary search": BinarySearchConfig(**common, searches=1, search_unsolved=True),
    }
    print(
        "| steps | errors a step | wrong solutions | tokens a solution: every step, to the first "
        "error, binary | binary / every | binary / first error | error found: every, first, binary "
        "| binary as every |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for steps, error_rate in ((12, 0.06), (12, 0.1), (16, 0.06), (24, 0.04)):
        asked = [make_problem(steps, seed) for seed in range(problems)]
        found = {name: measure(asked, config, error_rate) for name, config in methods.items()}
        ids = sorted(found["every step"])
        assert all(sorted(f) == ids for f in found.values())  # the same solutions
        listed = {name: [f[i] for i in ids] for name, f in found.items()}
        tokens = ", ".join(f"{sum(x.tokens for x in f) / len(ids):.0f}" for f in listed.values())
        right = ", ".join(
            f"{100 * sum(x.error == x.truth for x in f) / len(ids):.1f} %" for f in listed.values()
        )
        every, first, binary = listed.values()
        same = sum(a.error == b.error for a, b in zip(every, binary, strict=True)) / len(ids)
        print(
            f"| {steps} | {error_rate} | {len(ids)} | {tokens} | "
            f"{ratio(binary, every)} | {ratio(binary, first)} | {right} | {100 * same:.1f} % |"
        )


if __name__ == "__main__":
    main()
