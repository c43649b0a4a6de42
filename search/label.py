"""Monte Carlo step labels (Math-Shepherd 2312.08935, section 3.3, soft estimation).

Free samples of whole solutions, and further rollouts from chosen non-terminal steps, are pooled in
a trie: the label of a prefix is the share of correct ones among the completions that were sampled
from that prefix or from above it. Completions sampled from further down do not count: they were
not drawn from the prefix's own distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.types import StepLabels
from search.base import SampleRequest, SearchResult, Session


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """`solutions` free samples a problem; `rollouts_per_step` more from each of the first
    `prefixes` distinct non-terminal prefixes among them (0: none)."""

    solutions: int = 8
    rollouts_per_step: int = 0
    prefixes: int = 2
    temperature: float = 1.0
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if self.solutions < 1:
            raise ValueError(f"solutions is {self.solutions}; it must be at least 1")
        if self.rollouts_per_step < 0 or self.prefixes < 0:
            raise ValueError("rollouts_per_step and prefixes must not be negative")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A whole solution as steps of token ids. `origin`: how many leading steps were given to it
    rather than sampled; `correct`: the verifier's word."""

    steps: tuple[tuple[int, ...], ...]
    origin: int
    correct: bool


def cut_steps(session: Session, token_ids: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    ends = session.engine.step_ends(token_ids)
    starts = [0, *(end + 1 for end in ends[:-1])]
    return tuple(token_ids[a : b + 1] for a, b in zip(starts, ends, strict=True))


async def collect_rollouts(
    session: Session, config: LabelConfig
) -> tuple[list[Rollout], SearchResult]:
    """Sample and verify; the result carries the usage."""

    def rollout(token_ids: tuple[int, ...], origin: int) -> Rollout:
        """A truncated solution is not correct, whatever its text says so far."""
        finished = token_ids[-1] == session.engine.end_token_id
        correct = finished and session.verify(session.engine.decode(token_ids)).correct
        return Rollout(steps=cut_steps(session, token_ids), origin=origin, correct=correct)

    def request(node: int, prefix: tuple[int, ...], n: int) -> SampleRequest:
        return SampleRequest(
            node=node,
            prefix=session.prompt_ids + prefix,
            n=n,
            stop_at_step=False,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
        )

    [free] = await session.sample([request(0, (), config.solutions)])
    rollouts = [rollout(sample.token_ids, 0) for sample in free.samples]
    if config.rollouts_per_step:
        prefixes: list[tuple[tuple[int, ...], ...]] = []
        for solution in rollouts:
            for depth in range(1, len(solution.steps)):
                if solution.steps[:depth] not in prefixes:
                    prefixes.append(solution.steps[:depth])
        chosen = prefixes[: config.prefixes]
        flat = [tuple(token for step in prefix for token in step) for prefix in chosen]
        results = await session.sample(
            [request(1 + i, ids, config.rollouts_per_step) for i, ids in enumerate(flat)]
        )
        for prefix, ids, result in zip(chosen, flat, results, strict=True):
            rollouts += [rollout(ids + s.token_ids, len(prefix)) for s in result.samples]
    return rollouts, SearchResult(
        problem=session.problem,
        strategy="label",
        nodes=(),
        snapshots=(),
        usage=session.usage,
    )


def step_labels(
    problem_id: str,
    prompt: str,
    prompt_ids: tuple[int, ...],
    rollouts: Sequence[Rollout],
    decode: Callable[[Sequence[int]], str],
) -> list[StepLabels]:
    """One row a distinct solution; see the module's docstring for the estimate. The standard
    error is that of a share under Laplace's rule, sqrt(p(1-p)/n) with p = (k+1)/(n+2)."""
    totals: dict[tuple[tuple[int, ...], ...], tuple[int, int]] = {}
    for rollout in rollouts:
        for depth in range(max(1, rollout.origin), len(rollout.steps) + 1):
            correct, count = totals.get(rollout.steps[:depth], (0, 0))
            totals[rollout.steps[:depth]] = (correct + rollout.correct, count + 1)
    rows: list[StepLabels] = []
    for steps in dict.fromkeys(rollout.steps for rollout in rollouts):
        prefixes = [steps[:depth] for depth in range(1, len(steps) + 1)]
        labels = [totals[p][0] / totals[p][1] for p in prefixes if p in totals]
        if len(labels) < len(prefixes):
            continue
        counts = [totals[p][1] for p in prefixes]
        rows.append(
            StepLabels(
                problem_id=problem_id,
                prompt=prompt,
                prompt_ids=prompt_ids,
                completions=tuple(decode(step) for step in steps),
                completion_ids=steps,
                labels=tuple(labels),
                counts=tuple(counts),
                standard_errors=tuple(
                    math.sqrt(p * (1 - p) / n)
                    for p, n in (
                        ((label * n + 1) / (n + 2), n)
                        for label, n in zip(labels, counts, strict=True)
                    )
                ),
            )
        )
    return rows
