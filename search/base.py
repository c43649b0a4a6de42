"""What every search strategy is written against: requests, answers, the session of one problem.

A strategy is plain sequential code for one problem: an `async` function that awaits
`session.sample(...)` and `session.score(...)`. It never sees the batch that serves it (see
search/batcher.py) and never sees the gold answer, unless it is told to use the verifier.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from data.types import ModelUsage, Problem, Sample, StopReason, Usage, Verdict


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """`n` continuations of `prefix` (token ids). The noise of sample i is keyed by
    (seed, problem, node, first_index + i), so it does not depend on who shares the batch."""

    node: int
    prefix: tuple[int, ...]
    n: int
    first_index: int = 0
    stop_at_step: bool
    max_new_tokens: int
    temperature: float = 1.0  # 0 is greedy


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    samples: tuple[Sample, ...]
    usage: ModelUsage


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Process rewards of `sequence` (prompt and steps) at the positions `step_ends`."""

    node: int
    sequence: tuple[int, ...]
    step_ends: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    scores: tuple[float, ...]  # P(correct), in [0, 1], one per step end
    usage: ModelUsage


class Engine(Protocol):
    """Batches in, results out in input order. `items` pairs a problem id with its request."""

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]: ...

    def encode(self, text: str) -> tuple[int, ...]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def step_ends(self, token_ids: Sequence[int]) -> list[int]: ...

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage: ...

    @property
    def end_token_id(self) -> int: ...


class Scorer(Protocol):
    """A reward model as search sees it: batches of score requests."""

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]: ...


class Session(Protocol):
    """One problem's view of policy, reward model and verifier; adds up what was spent."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    engine: Engine
    usage: Usage

    def sample(self, requests: Sequence[SampleRequest]) -> Awaitable[list[SampleResult]]: ...

    def score(self, requests: Sequence[ScoreRequest]) -> Awaitable[list[ScoreResult]]: ...

    def verify(self, solution: str) -> Verdict: ...


@dataclass(slots=True, kw_only=True)
class Node:
    """One step (or one whole solution) in a tree. `value_sum / visit_count` is Q, in [0, 1]."""

    id: int
    parent: int
    token_ids: tuple[int, ...]
    text: str
    prior: float = 1.0
    proposals: int = 0  # how often the policy proposed this step from its parent
    logprob: float = 0.0  # of this step after its parent, nats, at temperature 1
    visit_count: int = 0
    value_sum: float = 0.0
    score: float | None = None  # the process reward at this step's end
    terminal: StopReason | None = None
    verdict: Verdict | None = None
    children: list[int] = field(default_factory=list[int])
    expansions: int = 0  # how often proposals were sampled from here
    settled: bool = False  # nothing below can change any more: no visit is wasted on it
    virtual_loss: int = 0

    @property
    def expanded(self) -> bool:
        return self.expansions > 0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The answer a search would have given with this budget, and what it had spent by then."""

    budget: int
    answer: str | None  # the solution text; None when nothing was produced
    answer_node: int | None
    truncated: bool
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    problem: Problem
    strategy: str
    nodes: tuple[Node, ...]
    snapshots: tuple[Snapshot, ...]
    usage: Usage


Strategy = Callable[[Session], Awaitable[SearchResult]]


def path_to(nodes: Sequence[Node], node: int) -> list[int]:
    """Node ids from the root's child down to `node` (the root itself is left out)."""
    path: list[int] = []
    while nodes[node].parent >= 0:
        path.append(node)
        node = nodes[node].parent
    return path[::-1]


def solution_ids(nodes: Sequence[Node], node: int) -> tuple[int, ...]:
    """Token ids from the end of the prompt to the end of `node`, exactly as generated."""
    return tuple(token for step in path_to(nodes, node) for token in nodes[step].token_ids)


def solution_text(nodes: Sequence[Node], node: int) -> str:
    return "".join(nodes[step].text for step in path_to(nodes, node))


def solution_logprob(nodes: Sequence[Node], node: int) -> float:
    """log pi(solution | prompt), nats, of all steps down to `node`."""
    return math.fsum(nodes[step].logprob for step in path_to(nodes, node))


def answer_value(score: float, logprob: float, likelihood_weight: float) -> float:
    """log score + likelihood_weight x log pi(solution | prompt): the answer maximises it.

    At weight 0 the best process reward wins, and with ever more samples ever stranger solutions
    that the reward model misjudges. With pi as a prior they must be likely too. In N samples a
    solution appears N x pi times on average, so this is also the vote weighted by the reward model
    (best-of-N weighted, Snell et al. 2408.03314, section 5.1) without the noise of counting.
    """
    return math.log(max(score, 1e-12)) + likelihood_weight * logprob


def step_end_positions(prompt_length: int, nodes: Sequence[Node], node: int) -> tuple[int, ...]:
    """Position of the last token of every step on the path, counted from the prompt's start."""
    ends: list[int] = []
    position = prompt_length - 1
    for step in path_to(nodes, node):
        position += len(nodes[step].token_ids)
        ends.append(position)
    return tuple(ends)
