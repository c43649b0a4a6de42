"""Monte Carlo tree search over reasoning steps with PUCT (AlphaZero, 1712.01815).

Granularity: step. One simulation: walk down by PUCT to a node that is not expanded, sample K
proposals for its next step, merge equal ones (prior = share of the K, Sampled MuZero 2104.06303),
score the new children, and back the leaf's value up the path.

Departures, and why:
- A child that was never visited starts at its own process reward instead of 0: it was scored when
  it was created, so the information is already paid for.
- A leaf's value mixes its best child's score and the prior-weighted mean by `leaf_best_weight`.
- Settled nodes (terminal, or all children settled) are not walked into again, so no simulation is
  wasted; a search whose root is settled ends early. The backed-up value is the reward in [0, 1];
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
    path_to,
    solution_ids,
    solution_text,
    step_end_positions,
)
from search.noise import row_key


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """`budgets`: numbers of simulations, ascending, at which an answer is taken.

    `control` replaces what guides the search by nothing: uniform priors and random values.
    `use_verifier` values terminal nodes by the verifier (making training data only) and ends after
    `max_solutions` distinct correct ones.
    """

    budgets: tuple[int, ...] = (16,)
    proposals: int = 4  # K
    exploration: float = 1.0  # c in PUCT
    leaf_best_weight: float = 1.0
    temperature: float = 1.0
    parallel: int = 1  # simulations of one tree that share a batch, kept apart by virtual loss
    aggregate: str = "last"
    max_step_tokens: int = 24
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
        if not 0 <= self.leaf_best_weight <= 1:
            raise ValueError(f"leaf_best_weight is {self.leaf_best_weight}; it must be in [0, 1]")


def puct(child: Node, parent_visits: int, exploration: float) -> float:
    """Q + c P sqrt(N_parent) / (1 + N). A virtual loss is a visit with value 0."""
    visits = child.visit_count + child.virtual_loss
    if visits == 0:
        q = child.score if child.score is not None else 0.0
    else:
        q = child.value_sum / visits
    return q + exploration * child.prior * math.sqrt(parent_visits) / (1 + visits)


def select_leaf(nodes: Sequence[Node], exploration: float) -> int | None:
    """Walk down to a node to expand; None when everything reachable is settled or in flight."""
    node = nodes[0]
    while node.expanded:
        open_children = [nodes[child] for child in node.children if not nodes[child].settled]
        if not open_children:
            return None
        visits = node.visit_count + node.virtual_loss
        node = max(open_children, key=lambda child: puct(child, max(1, visits), exploration))
    return None if node.virtual_loss else node.id


def select_leaves(nodes: Sequence[Node], exploration: float, most: int) -> list[int]:
    """Up to `most` different leaves, kept apart by a virtual loss on the paths already chosen."""
    leaves: list[int] = []
    for _ in range(most):
        leaf = select_leaf(nodes, exploration)
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


def merge_proposals(samples: Sequence[Sample]) -> list[tuple[Sample, float]]:
    """Distinct proposals in order of first appearance, each with its share of the K."""
    counts: dict[tuple[int, ...], int] = {}
    first: dict[tuple[int, ...], Sample] = {}
    for sample in samples:
        counts[sample.token_ids] = counts.get(sample.token_ids, 0) + 1
        first.setdefault(sample.token_ids, sample)
    return [(first[ids], count / len(samples)) for ids, count in counts.items()]


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
        """Expand the chosen leaves in one batch and back their values up."""
        session, config = self.session, self.config
        proposed = await session.sample(
            [
                SampleRequest(
                    node=leaf,
                    prefix=session.prompt_ids + solution_ids(self.nodes, leaf),
                    n=config.proposals,
                    stop_at_step=True,
                    max_new_tokens=config.max_step_tokens,
                    temperature=config.temperature,
                )
                for leaf in leaves
            ]
        )
        created: list[Node] = []
        for leaf, result in zip(leaves, proposed, strict=True):
            created += self._add_children(leaf, result.samples)
        await self._score(created)
        for leaf in leaves:
            children = [self.nodes[child] for child in self.nodes[leaf].children]
            scores = [child.score or 0.0 for child in children]
            mean = sum(c.prior * s for c, s in zip(children, scores, strict=True))
            best = config.leaf_best_weight
            backup(self.nodes, leaf, best * max(scores) + (1 - best) * mean)
            settle(self.nodes, leaf)

    def _add_children(self, leaf: int, samples: Sequence[Sample]) -> list[Node]:
        parent = self.nodes[leaf]
        parent.expanded = True
        merged = merge_proposals(samples)
        depth = len(path_to(self.nodes, leaf)) + 1
        for sample, share in merged:
            terminal = sample.stop_reason if sample.stop_reason != StopReason.STEP_END else None
            if terminal is None and depth >= self.config.max_depth:
                terminal = StopReason.LENGTH
            child = Node(
                id=len(self.nodes),
                parent=leaf,
                token_ids=sample.token_ids,
                text=self.session.engine.decode(sample.token_ids),
                prior=1 / len(merged) if self.config.control else share,
                logprob=sample.logprob,
                terminal=terminal,
                settled=terminal is not None,
            )
            self.nodes.append(child)
            parent.children.append(child.id)
        return [self.nodes[child] for child in parent.children]

    async def _score(self, created: Sequence[Node]) -> None:
        config, session = self.config, self.session
        to_score = [node for node in created if not self._known_value(node)]
        if not to_score:
            return
        aggregate = AGGREGATES[config.aggregate]
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
            node.score = aggregate(result.scores)

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
        """Best finished solution by score. Without one, the most promising open path is completed
        greedily; that is paid for by this snapshot only, not by larger budgets."""
        before = self.session.usage
        finished = [n for n in self.nodes if n.terminal is StopReason.END_OF_SOLUTION]
        if finished:
            answer = max(finished, key=lambda node: (node.score or 0.0, -node.id))
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
                    max_new_tokens=self.config.max_step_tokens * self.config.max_depth,
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
            leaves = select_leaves(
                search.nodes, config.exploration, min(config.parallel, budget - done)
            )
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
