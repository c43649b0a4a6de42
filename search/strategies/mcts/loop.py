"""Monte Carlo tree search over reasoning steps: PUCT, UCT, or Gumbel with sequential halving.

The granularity is the step. `search_mcts` is the outer loop. A simulation has five parts.
`search_mcts` does the first: it descends to the leaves that it expands together (`Descent.leaves`
in descent.py, by the formulas of selection.py). `_Search.simulate` does the others for these
leaves: sample proposals, merge equal steps, judge the new nodes (search/guidance.py), and back the
values up (`backup` in descent.py). There are two kinds of proposals:
- A proposal is a step. The value of the leaf is its own guidance value (`leaf_value: own`, as in
  AlphaZero), or it comes from its children. Then `leaf_best_weight` mixes the value of the best
  child with the prior-weighted mean of all children. `rollout_weight` (AlphaGo's lambda) mixes this
  value with the values of `leaf_rollouts` rollouts.
- A proposal is a rollout (`expand_by_rollouts`): the whole rest of a solution. All of its steps
  become nodes, and its end gets a value. Each rollout is a visit of every node on its path, with
  that value.

Departures from the papers, and why:
- The score of a step counts as `score_weight` visits in its Q, and as its whole Q before the first
  visit, because its cost is already paid.
- A search does not descend into settled nodes (terminal nodes, and nodes whose children are all
  settled), so it wastes no simulation. A search ends early when its root is settled. With widening,
  only terminal nodes are settled, because every other node can get more proposals; the same holds
  with `budget_guided` (search/strategies/mcts/budget.py). Without replacement, a node that has no
  proposals left is not expanded again, so nodes are settled as without widening
  (search/strategies/mcts/distinct.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data.types import Sample
from search.answers import Answers
from search.base import (
    ROLLOUT_INDEX,
    Node,
    SampleRequest,
    SearchEnd,
    SearchResult,
    Session,
    Simulations,
    Snapshot,
    finish,
    path_to,
    solution_text,
)
from search.growth import add_sample, continuation, new_tree
from search.guidance import judge
from search.strategies.mcts.budget import used_share
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.descent import Descent, backup, settle
from search.strategies.mcts.distinct import DistinctProposals
from search.strategies.mcts.selection import considered_visits
from search.votes import is_settled

MAX_DRAWS = 4  # limit of the samples per expansion, as a multiple of the distinct proposals wanted


class _Search:
    def __init__(self, session: Session, config: MCTSConfig) -> None:
        self.session = session
        self.config = config
        self.nodes = new_tree()
        self.distinct: DistinctProposals | None = None
        if config.without_replacement:
            self.distinct = DistinctProposals(session, self.nodes, config)
        self.descent = Descent(
            self.nodes,
            config,
            session.engine.seed,
            session.problem.id,
            self.distinct.exhausted if self.distinct else lambda _: False,
        )
        self.drawn: dict[int, int] = {}  # node id -> number of proposals sampled so far
        self.solutions: set[str] = set()
        self.simulations: list[Simulations] = []

    async def simulate(self, leaves: Sequence[int]) -> int:
        """Expand the chosen leaves in one batch and back the values up. Returns the number of
        simulations that this counts as, and records it in `simulations`.

        Each leaf counts as one simulation. With gumbel and rollouts, the expansion of the root
        counts as one simulation per `proposals` rollouts.
        """
        nodes, config = self.nodes, self.config
        first_new = len(nodes)
        backups: list[tuple[int, float]] = []
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
            backups += scored
            if not scored:  # no proposal or rollout has a value, so the leaf is not tried again
                nodes[leaf].settled = True
            if self.distinct is not None:
                self.distinct.settle([*ends[leaf], leaf])
            elif not config.widens:
                settle(nodes, nodes[leaf].parent if nodes[leaf].settled else leaf)
        spent = len(leaves)
        if config.selection == "gumbel" and leaves[0] == 0:
            if config.expand_by_rollouts:
                spent = math.ceil(len(ends[0]) / config.proposals)
            left = max(1, config.budgets[0] - spent)
            self.descent.schedule = considered_visits(len(nodes[0].children), left)
        done = spent + (self.simulations[-1].done if self.simulations else 0)
        self.simulations.append(Simulations(done=done, nodes=len(nodes), backups=tuple(backups)))
        return spent

    async def _expand(self, leaves: Sequence[int]) -> dict[int, list[int]]:
        """Add proposals below the leaves. Returns the nodes where each leaf's proposals end."""
        if self.distinct is None:
            ends = await self._expand_by_samples(leaves)
        else:
            ends = await self._expand_without_replacement(leaves, self.distinct)
        for leaf in leaves:
            self.nodes[leaf].expansions += 1
        return ends

    async def _expand_without_replacement(
        self, leaves: Sequence[int], distinct: DistinctProposals
    ) -> dict[int, list[int]]:
        """Draw until each leaf has enough new proposals or is exhausted."""
        ends = {leaf: list[int]() for leaf in leaves}
        open_leaves = list(leaves)
        while open_leaves:
            wanted = {leaf: self._wanted(leaf) - len(ends[leaf]) for leaf in open_leaves}
            found = await distinct.draw(
                [self._request(leaf, wanted[leaf], self.drawn.get(leaf, 0)) for leaf in open_leaves]
            )
            for leaf, samples in zip(open_leaves, found, strict=True):
                self.drawn[leaf] = self.drawn.get(leaf, 0) + wanted[leaf]
                for sample in samples:
                    end = self._add(leaf, sample)
                    distinct.set_masses(end)
                    ends[leaf].append(end)
            open_leaves = [
                leaf
                for leaf in open_leaves
                if len(ends[leaf]) < self._wanted(leaf) and not distinct.exhausted(leaf)
            ]
        return ends

    async def _expand_by_samples(self, leaves: Sequence[int]) -> dict[int, list[int]]:
        """With `distinct_proposals`, sampling goes on until there are enough distinct proposals or
        `MAX_DRAWS` is reached."""
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
        return ends

    def _is_gumbel_root(self, leaf: int) -> bool:
        return leaf == 0 and self.config.selection == "gumbel"

    def _wanted(self, leaf: int) -> int:
        """The number of proposals that one expansion of the leaf should have."""
        config = self.config
        if not self._is_gumbel_root(leaf):
            return config.proposals
        if config.expand_by_rollouts:  # at most half of all rollouts; the rest is for the best
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
        """Sample `leaf_rollouts` rollouts of each leaf. Returns the nodes where they end. These
        nodes are beside the tree."""
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
        """The value of a leaf from its score, its children and its rollouts. None when none of
        these has a score."""
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
        """Set the score of every node from `first_new` on.

        Two kinds of paths need no guidance. A path that was cut off has the score 0. With
        `use_verifier`, the verifier gives a finished path its score.
        """
        new = self.nodes[first_new:]
        known = {node.id for node in new if self._known_value(node)}
        known_scores = {id: self.nodes[id].score for id in known}
        parents = {node.parent for node in new}
        ends = [node for node in new if node.id not in parents and node.id not in known]
        if self.config.rollout_weight == 1:
            ends = [node for node in ends if node.terminal is not None]
        if self.config.score_weight > 0:  # the earlier steps of the known ends need guidance too
            ends += [node for node in new if node.id in known and node.parent >= first_new]
        ids = sorted(node.id for node in ends)
        await judge(self.session, self.nodes, ids)
        for id in known.intersection(ids):
            self.nodes[id].score, self.nodes[id].bad_score = known_scores[id], False

    def _known_value(self, node: Node) -> bool:
        if node.terminal is None:
            return False
        if not node.finished:
            node.score = 0.0
        elif self.config.use_verifier:
            text = solution_text(self.nodes, node.id)
            node.verdict = self.session.verify(text)
            node.score = float(node.verdict.correct)
            if node.verdict.correct:
                self.solutions.add(text)
        return node.score is not None

    def end(self) -> SearchEnd | None:
        """Why there is nothing more to search, or None."""
        config, left = self.config, 1.0
        if self.distinct is not None:
            left = self.distinct.remaining_mass()
            if left <= config.stop_mass:
                return SearchEnd.EXHAUSTED
        if self.nodes[0].settled:
            return SearchEnd.SETTLED
        # With an `answer_guidance`, the tree's scores do not choose the answer.
        settings = self.session.settings
        other_values = bool(settings.answer_guidance) and settings.needs_scores
        answers_count = not (config.use_verifier or config.answer_from_root_choice or other_values)
        if self.distinct is not None and config.stop_when_settled and answers_count:
            return SearchEnd.SETTLED if is_settled(self.session, self.nodes, left=left) else None
        return None


async def search_mcts(session: Session, config: MCTSConfig) -> SearchResult:
    """Run up to max(budgets) simulations (see the docstring of this module)."""
    search = _Search(session, config)
    snapshots: list[Snapshot] = []
    answers = Answers(session, search.nodes)
    done = 0
    end: SearchEnd | None = None
    for budget in config.budgets:
        while done < budget and end is None:
            if config.use_verifier and len(search.solutions) >= config.max_solutions:
                end = SearchEnd.SOLVED
            else:
                end = search.end() or session.exhausted()
            if end is None:
                if config.budget_guided:
                    search.descent.used = used_share(session, done, budget)
                leaves = search.descent.leaves(min(config.parallel_simulations, budget - done))
                assert leaves, "a tree that is not settled has a leaf to expand"
                session.share_after_call = (done + len(leaves)) / config.budgets[-1]
                done += await search.simulate(leaves)
        below = search.descent.root_choice() if config.answer_from_root_choice else 0
        snapshots.append(await answers.take(budget, below=below))
    return finish(
        session,
        "mcts",
        search.nodes,
        snapshots,
        end or SearchEnd.COMPLETE,
        remaining_mass=search.distinct.remaining_mass() if search.distinct else None,
        simulations=search.simulations,
    )
