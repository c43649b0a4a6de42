"""Monte Carlo tree search over reasoning steps: PUCT, UCT, or Gumbel with sequential halving.

Granularity: step. One simulation: walk down to a node to expand
(search/strategies/mcts/selection.py), sample proposals from it, merge equal steps, value what is
new (search/guidance.py), and back values up. What a proposal is decides where values come from:
- a step: the leaf's value is its own (`leaf_value: own`, AlphaZero) or made of its children's (the
  best one's and the prior-weighted mean, mixed by `leaf_best_weight`), and mixed with the values
  of `leaf_rollouts` rollouts by `rollout_weight` (AlphaGo's lambda);
- a rollout (`rollouts`): the whole rest of a solution. All of its steps become nodes, its end is
  valued, and each rollout is a visit of every node on its path with the value of its end.

Departures, and why:
- A step's score counts as `score_weight` visits in its Q, and as its whole Q before the first
  visit: it is paid for already.
- Settled nodes (terminal, or all children settled) are not walked into again, so no simulation is
  wasted; a search whose root is settled ends early. With widening only ends are settled, as more
  can be proposed anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data.types import Sample, StopReason
from search.answers import Answers
from search.base import (
    ROLLOUT_INDEX,
    Node,
    SampleRequest,
    SearchEnd,
    SearchResult,
    Session,
    Snapshot,
    finish,
    path_to,
    solution_text,
)
from search.growth import add_sample, continuation, new_tree
from search.guidance import judge
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.descent import Descent, backup, settle
from search.strategies.mcts.selection import considered_visits

MAX_DRAWS = 4  # times the distinct proposals wanted; then fewer have to do


class _Search:
    def __init__(self, session: Session, config: MCTSConfig) -> None:
        self.session = session
        self.config = config
        self.nodes = new_tree()
        self.descent = Descent(self.nodes, config, session.engine.seed, session.problem.id)
        self.drawn: dict[int, int] = {}  # proposals sampled so far, by node
        self.solutions: set[str] = set()

    async def simulate(self, leaves: Sequence[int]) -> int:
        """Expand the chosen leaves in one batch and back values up; how many simulations that was.
        With gumbel and rollouts the root's expansion is as many as usual ones with its rollouts."""
        nodes, config = self.nodes, self.config
        first_new = len(nodes)
        ends = await self._expand(leaves)
        rollouts = await self._leaf_rollouts(leaves) if config.leaf_rollouts else {}
        await self._value(first_new)
        for leaf in leaves:
            for node in [0, *path_to(nodes, leaf)]:
                nodes[node].simulations += 1
            if config.expand_by_rollouts:
                scored = [(end, s) for end in ends[leaf] if (s := nodes[end].score) is not None]
            else:
                value = self._leaf_value(leaf, rollouts.get(leaf, []))
                scored = [] if value is None else [(leaf, value)]
            for end, score in scored:
                backup(nodes, end, score)
            if not scored:  # nothing that came of it has a value: it is not tried again
                nodes[leaf].settled = True
            if config.widening == 0:
                settle(nodes, nodes[leaf].parent if nodes[leaf].settled else leaf)
        spent = len(leaves)
        if config.selection == "gumbel" and leaves[0] == 0:
            if config.expand_by_rollouts:
                spent = math.ceil(len(ends[0]) / config.proposals)
            left = max(1, config.budgets[0] - spent)
            self.descent.schedule = considered_visits(len(nodes[0].children), left)
        return spent

    async def _expand(self, leaves: Sequence[int]) -> dict[int, list[int]]:
        """Add proposals below the leaves; the nodes at which each leaf's proposals end. With
        distinct proposals draw until there are enough."""
        config, ends = self.config, {leaf: list[int]() for leaf in leaves}
        open_leaves = list(leaves)
        before = {leaf: len(self.nodes[leaf].children) for leaf in leaves}
        while open_leaves:
            wanted = {
                leaf: self._wanted(leaf) - len(self.nodes[leaf].children) + before[leaf]
                for leaf in open_leaves
            }
            results = await self.session.sample(
                [self._request(leaf, wanted[leaf], self.drawn.get(leaf, 0)) for leaf in open_leaves]
            )
            for leaf, result in zip(open_leaves, results, strict=True):
                self.drawn[leaf] = self.drawn.get(leaf, 0) + wanted[leaf]
                ends[leaf] += [self._add(leaf, sample) for sample in result.samples]
            open_leaves = [
                leaf
                for leaf in open_leaves
                if (
                    config.distinct_proposals
                    or (self._is_gumbel_root(leaf) and not config.expand_by_rollouts)
                )
                and len(self.nodes[leaf].children) - before[leaf] < self._wanted(leaf)
                and len(ends[leaf]) < MAX_DRAWS * self._wanted(leaf)
            ]
        for leaf in leaves:
            self.nodes[leaf].expansions += 1
        return ends

    def _is_gumbel_root(self, leaf: int) -> bool:
        return leaf == 0 and self.config.selection == "gumbel"

    def _wanted(self, leaf: int) -> int:
        """Proposals of one expansion."""
        config = self.config
        if not self._is_gumbel_root(leaf):
            return config.proposals
        if (
            config.expand_by_rollouts
        ):  # at most half of all rollouts: the rest is for the best of them
            return min(config.considered_actions, max(1, config.budgets[0] * config.proposals // 2))
        return min(config.considered_actions, max(1, config.budgets[0] - 1))

    def _request(self, leaf: int, n: int, first_index: int, rollout: bool = False) -> SampleRequest:
        return continuation(
            self.session,
            self.nodes,
            leaf,
            n,
            first_index=first_index,
            whole=rollout or self.config.expand_by_rollouts,
        )

    def _add(self, leaf: int, sample: Sample, beside: bool = False) -> int:
        return add_sample(
            self.session, self.nodes, leaf, sample, priors=self.config.priors,
            rollout=self.config.expand_by_rollouts or beside, beside=beside,
        )  # fmt: skip

    async def _leaf_rollouts(self, leaves: Sequence[int]) -> dict[int, list[int]]:
        """Nodes at which `leaf_rollouts` rollouts of each leaf end; they hang beside the tree."""
        n = self.config.leaf_rollouts
        results = await self.session.sample(
            [
                self._request(leaf, n, ROLLOUT_INDEX + n * (self.nodes[leaf].expansions - 1), True)
                for leaf in leaves
            ]
        )
        return {
            leaf: [self._add(leaf, sample, beside=True) for sample in result.samples]
            for leaf, result in zip(leaves, results, strict=True)
        }

    def _leaf_value(self, leaf: int, rollouts: Sequence[int]) -> float | None:
        """None when nothing that could be known of the leaf is a number."""
        config, node = self.config, self.nodes[leaf]
        children = [self.nodes[child] for child in node.children]
        known = [(c.prior, c.score) for c in children if c.score is not None]
        value = node.score if config.leaf_value == "own" else None
        if value is None and known:
            mean = sum(prior * score for prior, score in known)
            if len(known) < len(children):
                mean /= sum(prior for prior, _ in known)
            best = max(score for _, score in known)
            value = config.leaf_best_weight * best + (1 - config.leaf_best_weight) * mean
        ends = [self.nodes[end].score for end in rollouts]
        scores = [score for score in ends if score is not None]
        if not scores:
            return value
        mean = sum(scores) / len(scores)
        weight = 1.0 if value is None else config.rollout_weight
        return mean if weight == 1 else weight * mean + (1 - weight) * (value or 0.0)

    async def _value(self, first_new: int) -> None:
        """Give every node from `first_new` on its score. Values that need no guidance: a path that
        was cut off is worth 0, and a finished one what the verifier says where it may be asked."""
        new = self.nodes[first_new:]
        known = {node.id for node in new if self._known_value(node)}
        known_scores = {id: self.nodes[id].score for id in known}
        parents = {node.parent for node in new}
        ends = [node for node in new if node.id not in parents and node.id not in known]
        if self.config.rollout_weight == 1:
            ends = [node for node in ends if node.terminal is not None]
        if self.config.score_weight > 0:  # ends that need no guidance have steps that do
            ends += [node for node in new if node.id in known and node.parent >= first_new]
        ids = sorted(node.id for node in ends)
        await judge(self.session, self.nodes, ids)
        for id in known.intersection(ids):
            self.nodes[id].score, self.nodes[id].bad_score = known_scores[id], False

    def _known_value(self, node: Node) -> bool:
        if node.terminal is None:
            return False
        if node.terminal is not StopReason.END_OF_SOLUTION:
            node.score = 0.0
        elif self.config.use_verifier:
            text = solution_text(self.nodes, node.id)
            node.verdict = self.session.verify(text)
            node.score = float(node.verdict.correct)
            if node.verdict.correct:
                self.solutions.add(text)
        return node.score is not None


async def search_mcts(session: Session, config: MCTSConfig) -> SearchResult:
    """Run max(budgets) simulations; see the module's docstring."""
    search = _Search(session, config)
    root = search.nodes[0]
    snapshots: list[Snapshot] = []
    answers = Answers(session, search.nodes)
    done = 0
    end: SearchEnd | None = None
    for budget in config.budgets:
        while done < budget and end is None:
            if config.use_verifier and len(search.solutions) >= config.max_solutions:
                end = SearchEnd.SOLVED
            elif root.settled:
                end = SearchEnd.SETTLED
            else:
                end = session.exhausted()
            if end is None:
                leaves = search.descent.leaves(min(config.parallel_simulations, budget - done))
                assert leaves, "a tree that is not settled has a leaf to expand"
                session.share_after_call = (done + len(leaves)) / config.budgets[-1]
                done += await search.simulate(leaves)
        below = search.descent.root_choice() if config.answer_from_root_choice else 0
        snapshots.append(await answers.take(budget, below=below))
    return finish(session, "mcts", search.nodes, snapshots, end or SearchEnd.COMPLETE)
