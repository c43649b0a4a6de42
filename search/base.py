"""What every search strategy is written against: requests, answers, the session of one problem.

A strategy is plain sequential code for one problem: an `async` function that awaits
`session.sample(...)` and `session.score(...)`. It never sees the batch that serves it (see
search/batcher.py) and never sees the gold answer, unless it is told to use the verifier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from data.types import ModelUsage, Problem, Sample, StopReason, Usage, Verdict
from search.settings import SearchSettings

# Samples of one node for different ends have indices apart, so that they share no noise.
GUIDANCE_INDEX = 1_000_000
ROLLOUT_INDEX = 2_000_000
AUDIT_INDEX = 3_000_000


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
    """Process rewards of `sequence` (prompt and steps) at the positions `step_ends`. The first
    `prompt_length` ids are the prompt's: reward models that are asked in text must know."""

    node: int
    sequence: tuple[int, ...]
    step_ends: tuple[int, ...]
    prompt_length: int = 0


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    scores: tuple[float, ...]  # P(correct), in [0, 1], one per step end
    usage: ModelUsage


@dataclass(frozen=True, kw_only=True)
class ChoiceRequest:
    """How probable each of the token ids `options` is as the next token after `prefix`."""

    node: int
    prefix: tuple[int, ...]
    options: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    probabilities: tuple[float, ...]  # of the whole vocabulary's softmax, one per option
    usage: ModelUsage


class Engine(Protocol):
    """Batches in, results out in input order. `items` pairs a problem id with its request.
    `context_length` is the most tokens a prefix and what is sampled after it may have together,
    `seed` what all noise is keyed by."""

    @property
    def context_length(self) -> int: ...

    @property
    def seed(self) -> int: ...

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]: ...

    def choice_batch(self, items: Sequence[tuple[str, ChoiceRequest]]) -> list[ChoiceResult]: ...

    def encode(self, text: str) -> tuple[int, ...]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def step_ends(self, token_ids: Sequence[int]) -> list[int]: ...

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage: ...

    @property
    def end_token_id(self) -> int: ...


class Scorer(Protocol):
    """A reward model as search sees it: batches of score requests."""

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]: ...


class SearchEnd(StrEnum):
    """Why a search ended."""

    COMPLETE = "complete"  # it did all it was to do
    SETTLED = "settled"  # nothing that is left to do could change the answer
    SOLVED = "solved"  # as many correct solutions as were wanted
    CONFIDENT = "confident"  # a finished solution is worth `SearchSettings.stop_score`
    TOKENS = "tokens"  # a limit of `SearchSettings` was spent: generated tokens,
    FLOPS = "flops"  # floating point operations,
    DEADLINE = "deadline"  # seconds
    EMPTY_PROMPT = "empty_prompt"  # never started: the prompt has too few tokens
    LONG_PROMPT = "long_prompt"  # never started: the prompt leaves no room in the context


class Session(Protocol):
    """One problem's view of policy, reward model and verifier; adds up what was spent, in all
    (`usage`), by the node that asked for it (`node_usage`), and on answers alone (`beside`: greedy
    completions of open paths, which are no part of the search and of no limit). `best_score` is
    the largest guidance value of a finished solution so far. A strategy that
    knows sets `share_after_call` before it awaits a call: the share of its search, in [0, 1], that
    is done once the call is answered. Only the display of progress reads it."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    engine: Engine
    settings: SearchSettings
    usage: Usage
    node_usage: dict[int, Usage]
    beside: Usage
    best_score: float
    share_after_call: float

    def sample(self, requests: Sequence[SampleRequest]) -> Awaitable[list[SampleResult]]: ...

    def score(self, requests: Sequence[ScoreRequest]) -> Awaitable[list[ScoreResult]]: ...

    def choose(self, requests: Sequence[ChoiceRequest]) -> Awaitable[list[ChoiceResult]]: ...

    def verify(self, solution: str) -> Verdict: ...

    def final_answer(self, solution: str) -> str:
        """What the solution has in common with others that give the same answer."""
        ...

    def exhausted(self) -> SearchEnd | None:
        """Why the settings end the search here: a limit is spent, or a solution is good enough."""
        ...


@dataclass(slots=True, kw_only=True)
class Node:
    """One step (or one whole solution) in a tree. `value_sum / visit_count` is its mean value, in
    [0, 1]. A node that is not among its parent's `children` hangs beside the tree (a rollout's or a
    lookahead's steps): it may be the answer, but no search walks into it."""

    id: int
    parent: int
    token_ids: tuple[int, ...]
    text: str
    prior: float = 1.0
    proposals: int = 0  # how often the policy proposed this step from its parent
    logprob: float = 0.0  # of this step after its parent, nats, at temperature 1
    entropy: float = 0.0  # of its tokens' distributions, nats, summed, at temperature 1
    visit_count: int = 0
    value_sum: float = 0.0
    value_max: float = 0.0  # the largest value backed up through it
    simulations: int = 0  # that walked through it, its own expansions among them
    score: float | None = None  # the process reward at this step's end
    terminal: StopReason | None = None
    bad_score: bool = False  # its guidance gave no number in [0, 1]
    verdict: Verdict | None = None
    children: list[int] = field(default_factory=list[int])
    expansions: int = 0  # how often proposals were sampled from here
    settled: bool = False  # nothing below can change any more: no visit is wasted on it
    virtual_loss: int = 0
    revises: int = -1  # the earlier attempt that this one was made from
    usage: Usage = field(default_factory=Usage)  # of all requests made for this node

    @property
    def expanded(self) -> bool:
        return self.expansions > 0

    @property
    def finished(self) -> bool:
        """A whole solution ends here."""
        return self.terminal is not None and self.terminal.finished

    @property
    def cut_off(self) -> bool:
        """The path ends here without a solution: it can have no answer."""
        return self.terminal is not None and not self.terminal.finished


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
    end: SearchEnd = SearchEnd.COMPLETE

    @property
    def terminals(self) -> Counter[str]:
        """How many paths ended in which way (`StopReason`): truncations and scores that were no
        numbers are counted here, never taken for wrong answers."""
        return Counter(
            StopReason.BAD_SCORE.value if node.bad_score else node.terminal.value
            for node in self.nodes
            if node.terminal
        )

    def at(self, budget: int) -> Snapshot:
        """The answer at `budget`: none, at no cost, where the search never started.

        Raises ValueError for a budget the search did not answer at.
        """
        for snapshot in self.snapshots:
            if snapshot.budget == budget:
                return snapshot
        if self.end in (SearchEnd.EMPTY_PROMPT, SearchEnd.LONG_PROMPT):
            return Snapshot(
                budget=budget, answer=None, answer_node=None, truncated=True, usage=Usage()
            )
        raise ValueError(
            f"problem {self.problem.id}: no answer at budget {budget}; there are answers at "
            f"{[snapshot.budget for snapshot in self.snapshots]}"
        )


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


def without_end(session: Session, token_ids: Sequence[int]) -> tuple[int, ...]:
    """The ids but for the end token: for what is continued after all."""
    return tuple(token for token in token_ids if token != session.engine.end_token_id)


def solution_logprob(nodes: Sequence[Node], node: int) -> float:
    """log pi(solution | prompt), nats, of all steps down to `node`."""
    return math.fsum(nodes[step].logprob for step in path_to(nodes, node))


def finish(
    session: Session,
    strategy: str,
    nodes: Sequence[Node],
    snapshots: Sequence[Snapshot],
    end: SearchEnd,
) -> SearchResult:
    """The result of a search, each node with what was spent for it; the nodes' usages add up to
    the result's."""
    for node, usage in session.node_usage.items():
        nodes[node].usage = usage
    return SearchResult(
        problem=session.problem,
        strategy=strategy,
        nodes=tuple(nodes),
        snapshots=tuple(snapshots),
        usage=session.usage,
        end=end,
    )


def answer_value(score: float, logprob: float, likelihood_weight: float) -> float:
    """log score + likelihood_weight x log pi(solution | prompt): the answer maximises it.

    At weight 0 the best process reward wins, and with ever more samples ever stranger solutions
    that the reward model misjudges. With pi as a prior they must be likely too. In N samples a
    solution appears N x pi times on average, so this is also the vote weighted by the reward model
    (best-of-N weighted, Snell et al. 2408.03314, section 5.1) without the noise of counting.
    """
    return math.log(max(score, 1e-12)) + likelihood_weight * logprob


def step_end_positions(session: Session, nodes: Sequence[Node], node: int) -> list[tuple[int, ...]]:
    """For each node on the path, the positions of its steps' last tokens, counted from the prompt's
    start. A node is one step, or a whole solution with several."""
    ends: list[tuple[int, ...]] = []
    position = len(session.prompt_ids)
    for step in path_to(nodes, node):
        ids = nodes[step].token_ids
        ends.append(tuple(position + end for end in session.engine.step_ends(ids)))
        position += len(ids)
    return ends
