"""The descent of a search tree to the nodes that are expanded next, and the backup of values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from search.base import Node, path_to
from search.noise import uniform
from search.strategies.mcts.budget import completion, expansion_value
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.selection import (
    completed_q,
    improved_policy,
    interior_value,
    perturbed_logits,
    puct,
    q_value,
    rescaled,
    sigma,
    uct,
)


def may_widen(node: Node, config: MCTSConfig) -> bool:
    """Whether an expanded node has enough visits for a further expansion (see
    `MCTSConfig.widening`)."""
    if config.selection == "gumbel" and node.parent < 0:
        return False  # the steps considered at the root are fixed
    simulations = node.visit_count / config.visits_per_expansion
    return config.widening > 0 and node.expansions < simulations**config.widening


def backup(nodes: Sequence[Node], leaf: int, value: float) -> None:
    """Add one visit of `value`, in [0, 1], to the leaf and all its ancestors."""
    node = leaf
    while node >= 0:
        nodes[node].visit_count += 1
        nodes[node].value_sum += value
        nodes[node].value_max = max(nodes[node].value_max, value)
        node = nodes[node].parent


def settle(nodes: Sequence[Node], node: int) -> None:
    """Mark `node` and its ancestors as settled, up to the first one that has an open node below."""
    while node >= 0:
        current = nodes[node]
        if not current.expanded or not all(nodes[child].settled for child in current.children):
            return
        current.settled = True
        node = current.parent


class Descent:
    """Descends a tree to the nodes that are expanded next."""

    def __init__(
        self,
        nodes: Sequence[Node],
        config: MCTSConfig,
        seed: int,
        problem: str,
        exhausted: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """`exhausted` says whether a node has no proposals left."""
        self.exhausted = exhausted
        self.used = 0.0  # the share of the budget that is used, in [0, 1]
        self._completion: dict[int, float] = {}  # of the tree as it is (search/.../budget.py)
        self.nodes = nodes
        self.config = config
        self.seed = seed
        self.problem = problem
        self.schedule: list[int] = []  # `considered_visits` after the expansion of the root
        self.gumbel: dict[int, float] = {}  # g + logit per child of the root

    def leaves(self, most: int) -> list[int]:
        """Up to `most` different leaves. A virtual loss on the chosen paths makes the next descent
        take another path. There are fewer leaves, or none, when all others are settled or already
        chosen."""
        leaves: list[int] = []
        if self.config.budget_guided:
            self._completion = completion(self.nodes)
        for _ in range(most):
            leaf = self.leaf()
            if leaf is None:
                break
            leaves.append(leaf)
            for node in [0, *path_to(self.nodes, leaf)]:
                self.nodes[node].virtual_loss += 1
        for leaf in leaves:
            for node in [0, *path_to(self.nodes, leaf)]:
                self.nodes[node].virtual_loss -= 1
        return leaves

    def leaf(self) -> int | None:
        """Descend from the root to the next node to expand. None when there is none, or when
        another descent has already chosen it."""
        node = self.nodes[0]
        while node.expanded:
            more = self.config.widens and not self.exhausted(node.id)
            if more and may_widen(node, self.config):
                break
            children = [self.nodes[child] for child in node.children]
            if all(child.settled for child in children):
                if not more:
                    return None
                break
            best, value = self._best(node, children)
            if more and self.config.budget_guided and self._expansion_value(node) >= value:
                break
            node = best
        return None if node.virtual_loss else node.id

    def child(self, node: Node, children: Sequence[Node]) -> Node:
        """The node's best child that is not settled. The first one wins a tie."""
        return self._best(node, children)[0]

    def _best(self, node: Node, children: Sequence[Node]) -> tuple[Node, float]:
        """The best child and its value."""
        config = self.config
        first_play = self._q(node, 0.0)
        qs = [self._q(child, first_play) for child in children]
        if config.selection == "gumbel":
            values = self._gumbel_values(node, children, qs)
        else:
            formula = puct if config.selection == "puct" else uct
            visits = max(1, node.visit_count + node.virtual_loss)
            exploration = config.exploration * (1 - self.used)
            values = [
                (formula(child, q + self._bonus(child), visits, exploration), q)
                for child, q in zip(children, qs, strict=True)
            ]
        unsettled = [i for i, child in enumerate(children) if not child.settled]
        best = max(unsettled, key=lambda i: values[i])
        return children[best], values[best][0]

    def _bonus(self, child: Node) -> float:
        """What budget_guided adds to a child's value. 0 without it: `used` then stays 0."""
        if not self.used:
            return 0.0
        return self.config.completion_weight * self.used * self._completion[child.id]

    def _expansion_value(self, node: Node) -> float:
        first_play = self._q(node, 0.0)
        qs = [self._q(self.nodes[child], first_play) for child in node.children]
        return expansion_value(qs, self.used, self.config.variance_weight)

    def _q(self, node: Node, first_play: float) -> float:
        config = self.config
        return q_value(
            node,
            score_weight=config.score_weight,
            max_backup=config.max_backup,
            first_play=first_play,
        )

    def _gumbel_values(
        self, node: Node, children: Sequence[Node], qs: Sequence[float]
    ) -> list[tuple[float, float]]:
        sigmas = self._sigmas(node, children, qs)
        if node.parent >= 0:
            policy = improved_policy([child.prior for child in children], sigmas)
            visits = [child.visit_count + child.virtual_loss for child in children]
            return [
                (interior_value(p, n, sum(visits)), p) for p, n in zip(policy, visits, strict=True)
            ]
        had = [child.simulations + child.virtual_loss for child in children]
        wanted = self.schedule[min(sum(had), len(self.schedule) - 1)]
        return [
            (float(n == wanted), self._perturbed(children)[child.id] + s)
            for child, n, s in zip(children, had, sigmas, strict=True)
        ]

    def _sigmas(self, node: Node, children: Sequence[Node], qs: Sequence[float]) -> list[float]:
        known = [
            q if child.visit_count + child.virtual_loss or child.score is not None else None
            for child, q in zip(children, qs, strict=True)
        ]
        most = max(child.visit_count + child.virtual_loss for child in children)
        completed = completed_q(children, known, node.score)
        if self.config.rescale_values:
            completed = rescaled(completed)
        return sigma(completed, most, self.config.c_visit, self.config.c_scale)

    def _perturbed(self, children: Sequence[Node]) -> dict[int, float]:
        """g + logit per child of the root, by node id. The children are in the order in which they
        were drawn."""
        if not self.gumbel:
            logits = [math.log(max(child.prior, 1e-12)) for child in children]
            noised = perturbed_logits(
                [child.prior for child in children],
                [uniform(self.seed, self.problem, child.id, 1) for child in children],
            )
            scale = self.config.gumbel_scale
            self.gumbel = {
                child.id: logit + scale * (noise - logit)
                for child, logit, noise in zip(children, logits, noised, strict=True)
            }
        return self.gumbel

    def root_choice(self) -> int:
        """The best child of the root, or 0 when the root has no children.

        With gumbel, this is the child that sequential halving leaves: among the children with the
        most simulations, the one with the largest g + logit + sigma(q). With the other rules, it is
        the child with the most visits.
        """
        children = [self.nodes[child] for child in self.nodes[0].children]
        if not children:
            return 0
        if self.config.selection != "gumbel":
            return max(children, key=lambda child: (child.visit_count, child.score or 0.0)).id
        qs = [self._q(child, 0.0) for child in children]
        sigmas = self._sigmas(self.nodes[0], children, qs)
        perturbed = self._perturbed(children)
        return max(
            zip(children, sigmas, strict=True),
            key=lambda pair: (pair[0].simulations, perturbed[pair[0].id] + pair[1]),
        )[0].id
