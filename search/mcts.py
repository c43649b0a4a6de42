"""Monte Carlo tree search over reasoning steps with PUCT (AlphaZero, 1712.01815).

Granularity: step. One simulation: walk down by PUCT to a node that is not expanded, sample K
proposals from it, merge equal steps (prior = share of the proposals, Sampled MuZero 2104.06303),
score what is new, and back values up the path. What a proposal is decides where values come from:
- a step: the leaf's value mixes its best child's process reward and the prior-weighted mean of all
  by `leaf_best_weight`;
- a rollout (`rollouts`): the whole rest of a solution. All of its steps become nodes, its end is
  scored, and each rollout is a visit of every node on its path with the score of its end. One
  forward of the reward model scores all steps, and judging ends is what it does best.

Departures, and why:
- A step's process reward counts as `score_weight` visits in its Q, and as its whole Q before the
  first visit: the information is already paid for.
- Settled nodes (terminal, or all children settled) are not walked into again, so no simulation is
  wasted; a search whose root is settled ends early. With widening only ends are settled, as more
  can be proposed anywhere. The backed-up value is the reward in [0, 1];
  there is one player, so no sign flips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data.types import Sample, StopReason, Usage
from rewards.aggregate import AGGREGATES
from search.base import (
    Node,
    SampleRequest,
    ScoreRequest,
    SearchResult,
    Session,
    Snapshot,
    answer_value,
    path_to,
    solution_ids,
    solution_logprob,
    solution_text,
    step_end_positions,
)
from search.noise import row_key


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """`budgets`: numbers of simulations, ascending, at which an answer is taken.

    `exploration` is c in PUCT. `parallel` simulations of one tree share a batch, kept apart by
    virtual loss. `widening` w lets a node be expanded again once its visits, counted in expansions,
    exceed (expansions so far)^(1/w); 0: never. `max_step_tokens` and `max_depth` bound a step and
    a path, `max_new_tokens` a rollout.
    `likelihood_weight` is that of `search.base.answer_value`, by which the answer is chosen.
    `control` replaces what guides the search by nothing: uniform priors and random values.
    `use_verifier` values terminal nodes by the verifier (making training data only) and ends after
    `max_solutions` distinct correct ones.
    """

    budgets: tuple[int, ...] = (16,)
    proposals: int = 4  # K
    exploration: float = 1.0
    rollouts: bool = False
    leaf_best_weight: float = 1.0
    score_weight: float = 0.0
    widening: float = 0.0
    temperature: float = 1.0
    parallel: int = 1
    aggregate: str = "last"
    likelihood_weight: float = 0.0
    max_step_tokens: int = 24
    max_new_tokens: int = 64
    max_depth: int = 8
    control: bool = False
    use_verifier: bool = False
    max_solutions: int = 4

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"aggregate is {self.aggregate!r}; allowed: {', '.join(AGGREGATES)}")
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets is {self.budgets}; it must be ascending and not empty")
        for name, value in (
            ("the smallest of budgets", self.budgets[0]),
            ("proposals", self.proposals),
            ("parallel", self.parallel),
            ("max_depth", self.max_depth),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        for name, value in (
            ("leaf_best_weight", self.leaf_best_weight),
            ("widening", self.widening),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be in [0, 1]")
        for name, value in (
            ("exploration", self.exploration),
            ("score_weight", self.score_weight),
            ("likelihood_weight", self.likelihood_weight),
        ):
            if value < 0:
                raise ValueError(f"{name} is {value}; it must not be negative")

    @property
    def visits_per_expansion(self) -> int:
        return self.proposals if self.rollouts else 1


def puct(child: Node, parent_visits: int, exploration: float, score_weight: float = 0.0) -> float:
    """Q + c P sqrt(N_parent) / (1 + N). A virtual loss is a visit with value 0; the child's
    process reward stands for `score_weight` visits of that value, or for Q before any visit."""
    visits = child.visit_count + child.virtual_loss
    score = child.score if child.score is not None else 0.0
    weight = score_weight if child.score is not None else 0.0
    q = (child.value_sum + weight * score) / (visits + weight) if visits else score
    return q + exploration * child.prior * math.sqrt(parent_visits) / (1 + visits)


def may_widen(node: Node, config: MCTSConfig) -> bool:
    """Whether an expanded node's visits pay for a further expansion: see `MCTSConfig.widening`."""
    simulations = node.visit_count / config.visits_per_expansion
    return config.widening > 0 and node.expansions < simulations**config.widening


def select_leaf(nodes: Sequence[Node], config: MCTSConfig) -> int | None:
    """Walk down to a node to expand; None when everything reachable is settled or in flight."""
    node = nodes[0]
    while node.expanded and not may_widen(node, config):
        open_children = [nodes[child] for child in node.children if not nodes[child].settled]
        if not open_children:
            if config.widening == 0:
                return None
            break
        visits = max(1, node.visit_count + node.virtual_loss)
        node = max(
            open_children,
            key=lambda child: puct(child, visits, config.exploration, config.score_weight),
        )
    return None if node.virtual_loss else node.id


def select_leaves(nodes: Sequence[Node], config: MCTSConfig, most: int) -> list[int]:
    """Up to `most` different leaves, kept apart by a virtual loss on the paths already chosen."""
    leaves: list[int] = []
    for _ in range(most):
        leaf = select_leaf(nodes, config)
        if leaf is None:
            break
        leaves.append(leaf)
        for node in [0, *path_to(nodes, leaf)]:
            nodes[node].virtual_loss += 1
    for leaf in leaves:
        for node in [0, *path_to(nodes, leaf)]:
            nodes[node].virtual_loss -= 1
    return leaves


def backup(nodes: Sequence[Node], leaf: int, value: float) -> None:
    """Add one visit of `value`, in [0, 1], to the leaf and all its ancestors."""
    node = leaf
    while node >= 0:
        nodes[node].visit_count += 1
        nodes[node].value_sum += value
        node = nodes[node].parent


def settle(nodes: Sequence[Node], node: int) -> None:
    """Mark upward every node below which nothing is open any more."""
    while node >= 0:
        current = nodes[node]
        if not current.expanded or not all(nodes[child].settled for child in current.children):
            return
        current.settled = True
        node = current.parent


class _Search:
    def __init__(self, session: Session, config: MCTSConfig) -> None:
        self.session = session
        self.config = config
        self.nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
        self.solutions: set[str] = set()

    async def simulate(self, leaves: Sequence[int]) -> None:
        """Expand the chosen leaves in one batch and back values up."""
        session, config = self.session, self.config
        proposed = await session.sample(
            [
                SampleRequest(
                    node=leaf,
                    prefix=session.prompt_ids + solution_ids(self.nodes, leaf),
                    n=config.proposals,
                    first_index=config.proposals * self.nodes[leaf].expansions,
                    stop_at_step=not config.rollouts,
                    max_new_tokens=(
                        config.max_new_tokens if config.rollouts else config.max_step_tokens
                    ),
                    temperature=config.temperature,
                )
                for leaf in leaves
            ]
        )
        first_new = len(self.nodes)
        ends = [
            self._grow(leaf, result.samples) for leaf, result in zip(leaves, proposed, strict=True)
        ]
        await self._score(first_new)
        for leaf, leaf_ends in zip(leaves, ends, strict=True):
            if config.rollouts:
                for end in leaf_ends:
                    backup(self.nodes, end, self.nodes[end].score or 0.0)
            else:
                children = [self.nodes[child] for child in self.nodes[leaf].children]
                scores = [child.score or 0.0 for child in children]
                mean = sum(c.prior * s for c, s in zip(children, scores, strict=True))
                best = config.leaf_best_weight
                backup(self.nodes, leaf, best * max(scores) + (1 - best) * mean)
            if config.widening == 0:
                settle(self.nodes, leaf)

    def _grow(self, leaf: int, samples: Sequence[Sample]) -> list[int]:
        """Add the samples' steps below the leaf; the node at which each of them ends."""
        self.nodes[leaf].expansions += 1
        ends: list[int] = []
        depth = len(path_to(self.nodes, leaf))
        for sample in samples:
            at, start = leaf, 0
            step_ends = self.session.engine.step_ends(sample.token_ids)
            for steps, end in enumerate(step_ends, start=1):
                last = end == step_ends[-1] and sample.stop_reason != StopReason.STEP_END
                at = self._child(
                    at,
                    sample.token_ids[start : end + 1],
                    terminal=sample.stop_reason if last else None,
                    deepest=depth + steps >= self.config.max_depth,
                    logprob=sample.step_logprobs[steps - 1],
                )
                start = end + 1
            ends.append(at)
        return ends

    def _child(
        self,
        parent: int,
        token_ids: tuple[int, ...],
        *,
        terminal: StopReason | None,
        deepest: bool,
        logprob: float,
    ) -> int:
        """The parent's child with this step, made if need be; one more proposal counts for it."""
        siblings = [self.nodes[child] for child in self.nodes[parent].children]
        child = next((node for node in siblings if node.token_ids == token_ids), None)
        if child is None:
            if terminal is None and deepest and not self.config.rollouts:
                terminal = StopReason.LENGTH
            child = Node(
                id=len(self.nodes),
                parent=parent,
                token_ids=token_ids,
                text=self.session.engine.decode(token_ids),
                logprob=logprob,
                terminal=terminal,
                settled=terminal is not None or deepest,
            )
            self.nodes.append(child)
            self.nodes[parent].children.append(child.id)
            siblings.append(child)
        child.proposals += 1
        total = sum(node.proposals for node in siblings)
        for node in siblings:
            node.prior = 1 / len(siblings) if self.config.control else node.proposals / total
        return child.id

    async def _score(self, first_new: int) -> None:
        """Give every node from `first_new` on its value. A path is run through the reward model
        once, for all of its steps."""
        session = self.session
        new = self.nodes[first_new:]
        known = {node.id for node in new if self._known_value(node)}
        parents = {node.parent for node in new}
        to_score = [node for node in new if node.id not in known and node.id not in parents]
        steers = self.config.score_weight > 0 and not self.config.control
        if steers:  # ends that need no reward model have steps that do
            to_score += [node for node in new if node.id in known and node.parent >= first_new]
        to_score.sort(key=lambda node: node.id)
        if not to_score:
            return
        aggregate = AGGREGATES[self.config.aggregate]
        results = await session.score(
            [
                ScoreRequest(
                    node=node.id,
                    sequence=session.prompt_ids + solution_ids(self.nodes, node.id),
                    step_ends=step_end_positions(len(session.prompt_ids), self.nodes, node.id),
                )
                for node in to_score
            ]
        )
        for node, result in zip(to_score, results, strict=True):
            for steps, on_path in enumerate(path_to(self.nodes, node.id), start=1):
                if on_path >= first_new and on_path not in known:
                    self.nodes[on_path].score = aggregate(result.scores[:steps])

    def _known_value(self, node: Node) -> bool:
        """Values that need no reward model: truncation, the verifier's word, the control's dice."""
        if node.terminal is StopReason.LENGTH:
            node.score = 0.0
        elif self.config.use_verifier and node.terminal is not None:
            text = solution_text(self.nodes, node.id)
            node.verdict = self.session.verify(text)
            node.score = float(node.verdict.correct)
            if node.verdict.correct:
                self.solutions.add(text)
        elif self.config.control:
            key = row_key(0, f"control:{self.session.problem.id}", node.id, 0)
            node.score = (key % 2**32) / 2**32
        else:
            return False
        return True

    async def snapshot(self, budget: int) -> Snapshot:
        """The finished solution with the best `answer_value`. Without one, the most promising open
        path is completed greedily; that is paid for by this snapshot only, not by larger budgets.
        """
        before = self.session.usage
        finished = [n for n in self.nodes if n.terminal is StopReason.END_OF_SOLUTION]
        if finished:
            weight = 0.0 if self.config.control else self.config.likelihood_weight
            answer = max(
                finished,
                key=lambda node: answer_value(
                    node.score or 0.0,
                    solution_logprob(self.nodes, node.id) if weight else 0.0,
                    weight,
                ),
            )
            text = solution_text(self.nodes, answer.id)
            return Snapshot(
                budget=budget, answer=text, answer_node=answer.id, truncated=False, usage=before
            )
        leaf = 0
        while self.nodes[leaf].children:
            leaf = max(
                self.nodes[leaf].children,
                key=lambda child: (self.nodes[child].visit_count, self.nodes[child].score or 0.0),
            )
        path = solution_ids(self.nodes, leaf)
        [completed] = await self.session.sample(
            [
                SampleRequest(
                    node=leaf,
                    prefix=self.session.prompt_ids + path,
                    n=1,
                    stop_at_step=False,
                    max_new_tokens=self.config.max_new_tokens,
                    temperature=0.0,
                )
            ]
        )
        usage = self.session.usage
        self.session.usage = before
        sample = completed.samples[0]
        return Snapshot(
            budget=budget,
            answer=self.session.engine.decode(path + sample.token_ids),
            answer_node=None,
            truncated=sample.stop_reason is not StopReason.END_OF_SOLUTION,
            usage=usage,
        )


async def search_mcts(session: Session, config: MCTSConfig) -> SearchResult:
    """Run max(budgets) simulations; see the module's docstring."""
    search = _Search(session, config)
    snapshots: list[Snapshot] = []
    extra = Usage()
    done = 0
    for budget in config.budgets:
        while done < budget and not search.nodes[0].settled:
            if config.use_verifier and len(search.solutions) >= config.max_solutions:
                break
            leaves = select_leaves(search.nodes, config, min(config.parallel, budget - done))
            await search.simulate(leaves)
            done += len(leaves)
        snapshot = await search.snapshot(budget)
        extra = extra + _difference(snapshot.usage, session.usage)
        snapshots.append(snapshot)
    return SearchResult(
        problem=session.problem,
        strategy="mcts_uniform_control" if config.control else "mcts",
        nodes=tuple(search.nodes),
        snapshots=tuple(snapshots),
        usage=session.usage + extra,
    )


def _difference(larger: Usage, smaller: Usage) -> Usage:
    policy = {
        name: getattr(larger.policy, name) - getattr(smaller.policy, name)
        for name in larger.policy.__dataclass_fields__
    }
    return Usage(policy=type(larger.policy)(**policy))
