"""A toy world for search: solutions are strings of letters, one letter per step, with known optima.

Token ids are the code points of the letters. The id 0 ends a solution. Every letter ends a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch

from data.types import ModelUsage, Outcome, Problem, Sample, StopReason, TokenDraws, Verdict
from search.base import (
    ChoiceRequest,
    ChoiceResult,
    Node,
    SampleRequest,
    SampleResult,
    ScoreRequest,
    ScoreResult,
)
from search.noise import gumbel_noise, row_key

PROMPT = "?>"


@lru_cache(maxsize=256)
def noise_of(
    seed: int, problem: str, node: int, indices: range, position: int, letters: tuple[str, ...]
) -> list[list[float]]:
    """Noise of each sample for each letter: computed at once, as a request's samples share it."""
    keys = torch.tensor([row_key(seed, problem, node, index) for index in indices])
    return gumbel_noise(keys, position, torch.tensor([list(map(ord, letters))])).tolist()


def draw_logprobs(
    options: dict[str, float], temperature: float, excluded: Sequence[int]
) -> dict[str, float]:
    """The log-probabilities with which the letters that are not excluded are drawn."""
    without = {"." if token == 0 else chr(token) for token in excluded}
    logs = {a: math.log(p) / (temperature or 1) for a, p in options.items() if a not in without}
    if len(logs) == 1:
        return dict.fromkeys(logs, 0.0)
    total = math.log(math.fsum(map(math.exp, logs.values())))
    return {letter: log - total for letter, log in logs.items()}


class ToyEngine:
    """A policy over letters. `letters(prefix)` gives the probabilities of the next letter. The
    letter "." ends the solution."""

    end_token_id = 0
    end_token_ids = frozenset({0})
    begin_ids: tuple[int, ...] = ()

    def __init__(
        self,
        letters: Callable[[str], dict[str, float]],
        seed: int = 0,
        context_length: int = 1000,
        choices: Callable[[str], dict[str, float]] | None = None,
    ) -> None:
        self.letters = letters
        self.seed = seed
        self.context_length = context_length
        self.choices = choices
        self.batches: list[list[tuple[str, SampleRequest]]] = []

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    encode_prompt = encode

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in token_ids if token)

    def step_ends(self, token_ids: Sequence[int]) -> list[int]:
        return list(range(len(token_ids)))

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage:
        return ModelUsage(
            prompt_tokens=prefix_length, generated_tokens=sum(lengths), sequences=len(lengths)
        )

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]:
        self.batches.append(list(items))
        return [self._answer(problem, request) for problem, request in items]

    def choice_batch(self, items: Sequence[tuple[str, ChoiceRequest]]) -> list[ChoiceResult]:
        assert self.choices is not None
        results: list[ChoiceResult] = []
        for _, request in items:
            options = self.choices(self.decode(request.prefix)[len(PROMPT) :])
            usage = ModelUsage(positions=len(request.prefix), sequences=1)
            probabilities = tuple(options.get(chr(token), 0.0) for token in request.options)
            results.append(ChoiceResult(probabilities=probabilities, usage=usage))
        return results

    def _answer(self, problem: str, request: SampleRequest) -> SampleResult:
        samples = tuple(
            self._sample(problem, request, request.first_index + i) for i in range(request.n)
        )
        return SampleResult(
            samples=samples,
            usage=self.sample_usage(len(request.prefix), [len(s.token_ids) for s in samples]),
        )

    def _sample(self, problem: str, request: SampleRequest, index: int) -> Sample:
        text, ids = self.decode(request.prefix)[len(PROMPT) :], []
        logprobs: list[float] = []
        entropies: list[float] = []
        drawn: list[float] = []
        indices = range(request.first_index, request.first_index + request.n)
        while True:
            options = self.letters(text)
            logs = draw_logprobs(options, request.temperature, () if ids else request.excluded)
            scores = dict(logs)
            if request.temperature:
                at = (self.seed, problem, request.node, indices, len(ids), tuple(options))
                noise = noise_of(*at)[indices.index(index)]
                for letter, added in zip(options, noise, strict=True):
                    if letter in scores:
                        scores[letter] += added
            letter = max(scores, key=scores.__getitem__)
            ids.append(0 if letter == "." else ord(letter))
            text += letter
            drawn.append(logs[letter] if request.temperature else 0.0)
            logprobs.append(math.log(options[letter]))
            entropies.append(-math.fsum(p * math.log(p) for p in options.values()))
            if letter == ".":
                stop = StopReason.END_OF_SOLUTION
            elif len(request.prefix) + len(ids) >= self.context_length:
                stop = StopReason.CONTEXT
            elif request.stop_at_step:
                stop = StopReason.STEP_END
            elif len(ids) == request.max_new_tokens:
                stop = StopReason.LENGTH
            else:
                continue
            draws = TokenDraws(
                logprobs=tuple(logprobs), entropies=tuple(entropies), draw_logprobs=tuple(drawn)
            )
            return Sample(
                token_ids=tuple(ids),
                step_logprobs=tuple(logprobs),
                step_entropies=tuple(entropies),
                stop_reason=stop,
                draws=draws if request.with_draws else None,
            )


class ToyScorer:
    """`value(text)` is the process reward of a partial solution."""

    shares_trunk = False

    def __init__(self, value: Callable[[str], float]) -> None:
        self.value = value

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]:
        results: list[ScoreResult] = []
        for _, request in items:
            scores = tuple(
                self.value("".join(chr(t) for t in request.sequence[len(PROMPT) : end + 1] if t))
                for end in request.step_ends
            )
            usage = ModelUsage(positions=len(request.sequence), sequences=1)
            results.append(ScoreResult(scores=scores, usage=usage))
        return results


def verify_solution(problem: Problem, solution: str) -> Verdict:
    right = solution == problem.answer
    return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


def toy_problem(name: str, answer: str) -> Problem:
    return Problem(id=name, prompt=PROMPT, answer=answer)


def prefix_text(prefix: Sequence[int]) -> str:
    """The letters of a request's prefix, without the problem's prompt."""
    return "".join(chr(token) for token in prefix if token)[len(PROMPT) :]


def make_tree(*nodes: dict[str, Any]) -> list[Node]:
    """A tree of an expanded root and nodes with these fields. Their ids begin at 1."""
    made = [Node(id=0, parent=-1, token_ids=(), text="", expansions=1)]
    for fields in nodes:
        node = Node(id=len(made), token_ids=(len(made),), text=str(len(made)), **fields)
        made.append(node)
        made[node.parent].children.append(node.id)
    return made


class Toys:
    """All toys of this file by name, for the tests."""

    Engine = ToyEngine
    Scorer = ToyScorer
    verify = staticmethod(verify_solution)
    text = staticmethod(prefix_text)
    tree = staticmethod(make_tree)
    problem = staticmethod(toy_problem)


@pytest.fixture(scope="session")
def toys() -> type[Toys]:
    return Toys
