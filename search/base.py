"""The types that every search strategy uses: requests, results, the session of one problem, nodes.

A strategy is plain sequential code for one problem. It is an `async` function that awaits
`session.sample(...)` and `session.score(...)`. It never sees the batch that its requests are part
of (see search/batcher.py). It never sees the gold answer, unless it is told to use the verifier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from data.types import ModelUsage, Problem, Sample, ServedTokens, StopReason, Usage, Verdict
from search.settings import SearchSettings

# The samples of one node serve several purposes. Each purpose has its own range of sample indices,
# so that samples for different purposes share no noise.
GUIDANCE_INDEX = 1_000_000
ROLLOUT_INDEX = 2_000_000
AUDIT_INDEX = 3_000_000


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """A request for `n` continuations of `prefix` (token ids).

    The noise of sample i is keyed by (seed, problem, node, first_index + i). It does not depend on
    the other requests in the batch.
    """

    node: int
    prefix: tuple[int, ...]
    n: int
    first_index: int = 0
    stop_at_step: bool
    max_new_tokens: int
    temperature: float = 1.0  # 0 is greedy
    excluded: tuple[int, ...] = ()  # tokens that the first token of a sample must not be
    with_draws: bool = False  # the samples have their `draws`


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """The `n` samples of a request, in the order of their indices, and their cost."""

    samples: tuple[Sample, ...]
    usage: ModelUsage
    served: ServedTokens | None = None  # where a server of its own answered


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """A request for the process rewards of `sequence` (prompt and steps) at the positions
    `step_ends`.

    The first `prompt_length` ids of the sequence are the prompt. Reward models that read text need
    this number.
    """

    node: int
    sequence: tuple[int, ...]
    step_ends: tuple[int, ...]
    prompt_length: int = 0


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """The scores of a request, in the order of its `step_ends`, and their cost."""

    scores: tuple[float, ...]  # one P(correct) per step end, in [0, 1]
    usage: ModelUsage


@dataclass(frozen=True, kw_only=True)
class ChoiceRequest:
    """A request for the probability of each token id in `options` as the next token after
    `prefix`."""

    node: int
    prefix: tuple[int, ...]
    options: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """The probabilities of a request's `options`, in their order, and their cost."""

    probabilities: tuple[float, ...]  # one per option, from the softmax over the whole vocabulary
    usage: ModelUsage
    served: ServedTokens | None = None  # where a server of its own answered


class Policy(Protocol):
    """What a search may ask of a policy without a forward pass: its texts, limits and costs.

    `context_length` is the largest number of tokens that a prefix and its continuation may have
    together. All noise is keyed by `seed`.

    `encode_prompt` encodes a text that nothing precedes and puts `begin_ids` before it. `encode`
    encodes a text that follows other text, and `decode` gives the text that ids add to the text
    before them. Any of `end_token_ids` ends a solution. `end_token_id` is the one to write.
    """

    @property
    def context_length(self) -> int: ...

    @property
    def seed(self) -> int: ...

    def encode_prompt(self, text: str) -> tuple[int, ...]: ...

    def encode(self, text: str) -> tuple[int, ...]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def step_ends(self, token_ids: Sequence[int]) -> list[int]: ...

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage: ...

    def prefix_flops(self, length: int) -> float:
        """The FLOPs that a request costs less if the keys and values of its first `length`
        positions are known. 0 for a model that always reads whole sequences."""
        ...

    @property
    def end_token_id(self) -> int: ...

    @property
    def end_token_ids(self) -> frozenset[int]: ...

    @property
    def begin_ids(self) -> tuple[int, ...]: ...


class Engine(Policy, Protocol):
    """A policy that answers batches of requests, in input order. An item is a pair of a problem id
    and its request. An engine that answers single requests is a `search.continuous.AsyncEngine`."""

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]: ...

    def choice_batch(self, items: Sequence[tuple[str, ChoiceRequest]]) -> list[ChoiceResult]: ...


class Scorer(Protocol):
    """A reward model as search uses it. It answers batches of score requests, in input order."""

    @property
    def shares_trunk(self) -> bool:
        """Whether its keys and values are those of the policy, which has the same trunk."""
        ...

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]: ...

    def prefix_flops(self, length: int) -> float:
        """As `Engine.prefix_flops`."""
        ...


class SearchEnd(StrEnum):
    """Why a search ended."""

    COMPLETE = "complete"  # the search finished all of its work
    SETTLED = "settled"  # the rest of the budget could not change the answer
    EXHAUSTED = "exhausted"  # no more than `stop_mass` of the policy's probability is left to draw
    SOLVED = "solved"  # the search has the required number of correct solutions
    CONFIDENT = "confident"  # the value of a finished solution reached `SearchSettings.stop_score`
    TOKENS = "tokens"  # the search reached `SearchSettings.max_generated_tokens`
    FLOPS = "flops"  # the search reached `SearchSettings.max_flops`
    DEADLINE = "deadline"  # the search reached `SearchSettings.max_seconds`
    EMPTY_PROMPT = "empty_prompt"  # the search never started: the prompt has too few tokens
    LONG_PROMPT = "long_prompt"  # the search never started: the prompt fills the context


class Session(Protocol):
    """The policy, the reward models and the verifier, as the search for one problem uses them.

    `score` asks the reward model, and `judge` a second one, which only chooses answers.

    The session adds up the cost of the search:
    - `usage` is the total cost.
    - `node_usage` is the cost per node that made the requests.
    - `beside` is the cost of greedy completions of open paths, which are needed only to give an
      answer. They are not part of the search and count towards no limit. `usage` includes them.

    `best_score` is the largest guidance value of a finished solution so far. `share_after_call` is
    the share of the search, in [0, 1], that is done when the next call returns. A strategy that
    knows this share sets it before it awaits the call. Only the display of progress reads it.
    """

    problem: Problem
    prompt_ids: tuple[int, ...]
    engine: Policy
    settings: SearchSettings
    usage: Usage
    node_usage: dict[int, Usage]
    beside: Usage
    best_score: float
    share_after_call: float

    def sample(self, requests: Sequence[SampleRequest]) -> Awaitable[list[SampleResult]]: ...

    def score(self, requests: Sequence[ScoreRequest]) -> Awaitable[list[ScoreResult]]: ...

    def judge(self, requests: Sequence[ScoreRequest]) -> Awaitable[list[ScoreResult]]: ...

    def choose(self, requests: Sequence[ChoiceRequest]) -> Awaitable[list[ChoiceResult]]: ...

    def verify(self, solution: str) -> Verdict: ...

    def final_answer(self, solution: str) -> str:
        """The final answer as a text that is equal for all solutions with the same answer."""
        ...

    def exhausted(self) -> SearchEnd | None:
        """The reason why the search must end now, or None. The search must end when it has
        reached a limit or when a finished solution has a value of at least `stop_score`."""
        ...


@dataclass(slots=True, kw_only=True)
class Node:
    """One step (or one whole solution) in a tree.

    The mean value of a node is `value_sum / visit_count`, in [0, 1]. A node that is not in the
    `children` of its parent is beside the tree: it is a step of a rollout or of a lookahead. Such a
    node may be the answer, but no search descends into it.
    """

    id: int
    parent: int
    token_ids: tuple[int, ...]
    text: str
    prior: float = 1.0
    proposals: int = 0  # how often the policy proposed this step after the parent
    # The probability of the path that ends here, at the sampling temperature. Only a search that
    # samples without replacement knows it.
    mass: float | None = None
    # log pi(step | path to the parent), nats, at temperature 1; NaN if the engine does not say it
    logprob: float = 0.0
    entropy: float = 0.0  # entropy summed over the step's tokens, nats, at temperature 1
    visit_count: int = 0
    value_sum: float = 0.0
    value_max: float = 0.0  # the largest value that was backed up through this node
    simulations: int = 0  # simulations that passed through this node or expanded it
    score: float | None = None  # the guidance value of the path that ends with this step
    # The value of `SearchSettings.answer_guidance` where it is not the `score`: for the finished
    # solutions of a tree.
    answer_score: float | None = None
    terminal: StopReason | None = None
    bad_score: bool = False  # the guidance gave no number in [0, 1]
    verdict: Verdict | None = None
    children: list[int] = field(default_factory=list[int])
    expansions: int = 0  # how often proposals were sampled from this node
    settled: bool = False  # nothing below can change any more, so no search visits this node
    virtual_loss: int = 0
    revises: int = -1  # the node of the earlier attempt that this attempt revises, or -1
    usage: Usage = field(default_factory=Usage)  # the cost of all requests of this node

    @property
    def expanded(self) -> bool:
        """Whether proposals were sampled from this node."""
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
    """The answer that a search gives at this budget, and the cost of the search up to there."""

    budget: int
    answer: str | None  # the solution text; None when there is no solution
    answer_node: int | None
    truncated: bool
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Simulations:
    """What a tree search did at once: the simulations of one batch of leaves.

    `done` and `nodes` count the simulations and the nodes of the tree after it. `backups` holds the
    node and the value, in [0, 1], of each visit that was backed up, in order.
    """

    done: int
    nodes: int
    backups: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of one search: its tree, its answer at each budget and its cost.

    The id of a node is its index in `nodes`. Node 0 is the root.
    """

    problem: Problem
    strategy: str
    nodes: tuple[Node, ...]
    snapshots: tuple[Snapshot, ...]
    usage: Usage
    end: SearchEnd = SearchEnd.COMPLETE
    # The probability, at the sampling temperature, of all solutions that were not drawn. Only a
    # search that samples without replacement knows it.
    remaining_mass: float | None = None
    served: ServedTokens | None = None  # where a server of its own sampled
    # How often verifiers said what during the search (rewards/verifiers/tally.py).
    verdicts: Mapping[str, int] = field(default_factory=dict[str, int])
    simulations: tuple[Simulations, ...] = ()  # in order; only Monte Carlo tree search has them

    @property
    def terminals(self) -> Counter[str]:
        """The number of paths per reason why they ended (`StopReason`). Truncated paths and paths
        with a bad score have their own counts here. They never count as wrong answers."""
        return Counter(
            StopReason.BAD_SCORE.value if node.bad_score else node.terminal.value
            for node in self.nodes
            if node.terminal
        )

    def at(self, budget: int) -> Snapshot:
        """The answer at `budget`. A search that never started has no answer and no cost.

        Raises ValueError when the search gave no answer at this budget.
        """
        for snapshot in self.snapshots:
            if snapshot.budget == budget:
                return snapshot
        if self.end in (SearchEnd.EMPTY_PROMPT, SearchEnd.LONG_PROMPT):
            return Snapshot(
                budget=budget, answer=None, answer_node=None, truncated=True, usage=Usage()
            )
        raise ValueError(
            f"problem {self.problem.id}: there is no answer at budget {budget}; the budgets with "
            f"an answer are {[snapshot.budget for snapshot in self.snapshots]}"
        )


Strategy = Callable[[Session], Awaitable[SearchResult]]


def path_to(nodes: Sequence[Node], node: int) -> list[int]:
    """The node ids from the root's child down to `node`. The path does not include the root."""
    path: list[int] = []
    while nodes[node].parent >= 0:
        path.append(node)
        node = nodes[node].parent
    return path[::-1]


def solution_ids(nodes: Sequence[Node], node: int) -> tuple[int, ...]:
    """The token ids from the end of the prompt to the end of `node`, exactly as generated."""
    return tuple(token for step in path_to(nodes, node) for token in nodes[step].token_ids)


def solution_text(nodes: Sequence[Node], node: int) -> str:
    """The text from the end of the prompt to the end of `node`."""
    return "".join(nodes[step].text for step in path_to(nodes, node))


def without_end(session: Session, token_ids: Sequence[int]) -> tuple[int, ...]:
    """The ids without end tokens. A text that goes on after a solution needs this."""
    return tuple(token for token in token_ids if token not in session.engine.end_token_ids)


def solution_logprob(nodes: Sequence[Node], node: int) -> float:
    """log pi(solution | prompt) in nats, summed over all steps down to `node`."""
    return math.fsum(nodes[step].logprob for step in path_to(nodes, node))


def finish(
    session: Session,
    strategy: str,
    nodes: Sequence[Node],
    snapshots: Sequence[Snapshot],
    end: SearchEnd,
    *,
    remaining_mass: float | None = None,
    simulations: Sequence[Simulations] = (),
) -> SearchResult:
    """The result of a search. Every node gets the cost of its requests as its `usage`. The usages
    of the nodes add up to the usage of the result."""
    for node, usage in session.node_usage.items():
        nodes[node].usage = usage
    return SearchResult(
        problem=session.problem,
        strategy=strategy,
        nodes=tuple(nodes),
        snapshots=tuple(snapshots),
        usage=session.usage,
        end=end,
        remaining_mass=remaining_mass,
        simulations=tuple(simulations),
    )


def answer_value(score: float, logprob: float, likelihood_weight: float) -> float:
    """log score + likelihood_weight x log pi(solution | prompt), in nats.

    The solution with the largest value is the answer. At weight 0 the solution with the best
    process reward wins. The more samples there are, the more often that is a strange solution that
    the reward model misjudges. A positive weight uses pi as a prior, so the answer must be likely
    too. A solution appears N x pi times in N samples on average. At weight 1 this value therefore
    ranks solutions like the vote weighted by the reward model (best-of-N weighted, Snell et al.
    2408.03314, section 5.1), but without the noise of counting.
    """
    return math.log(max(score, 1e-12)) + likelihood_weight * logprob


def step_end_positions(session: Session, nodes: Sequence[Node], node: int) -> list[tuple[int, ...]]:
    """For each node on the path, the positions of the last tokens of its steps. Positions count
    from the start of the prompt. A node is one step, or a whole solution of several steps."""
    ends: list[tuple[int, ...]] = []
    position = len(session.prompt_ids)
    for step in path_to(nodes, node):
        ids = nodes[step].token_ids
        ends.append(tuple(position + end for end in session.engine.step_ends(ids)))
        position += len(ids)
    return ends
