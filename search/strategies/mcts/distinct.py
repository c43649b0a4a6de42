"""Expansion without replacement: no step and no rollout is proposed twice.

With steps as proposals, every node has a token trie of the steps that were drawn below it. With
rollouts, one trie holds all solutions of the search, so a rollout from a node never repeats one
from an ancestor (search/token_trie.py). A node with nothing left to draw is exhausted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from data.types import Sample
from search.base import Node, SampleRequest, Session, path_to, solution_ids
from search.distinct_samples import DistinctRequest, draw_distinct
from search.strategies.mcts.config import MCTSConfig
from search.token_trie import TokenTrie


class DistinctProposals:
    """Draws the proposals of one tree without replacement, and knows what is left to draw."""

    def __init__(self, session: Session, nodes: Sequence[Node], config: MCTSConfig) -> None:
        self.session = session
        self.nodes = nodes
        self.config = config
        self._tries: dict[int, TokenTrie] = {}  # by node; with rollouts, the root's alone

    def _place(self, node: int) -> tuple[TokenTrie, tuple[int, ...]]:
        """The trie of a node's proposals, and the tokens from its root to the node."""
        rollouts = self.config.expand_by_rollouts
        trie = self._tries.setdefault(0 if rollouts else node, TokenTrie())
        return trie, solution_ids(self.nodes, node) if rollouts else ()

    async def draw(self, requests: Sequence[SampleRequest]) -> list[list[Sample]]:
        """New proposals below the node of each request, at most `n` each. There may be none when
        another request of the same call took all that was left."""
        places = [self._place(request.node) for request in requests]
        return await draw_distinct(
            self.session,
            [
                DistinctRequest(request=request, trie=trie, start=start)
                for request, (trie, start) in zip(requests, places, strict=True)
            ],
        )

    def exhausted(self, node: int) -> bool:
        """Whether at most `stop_mass` of the node's probability is left to draw."""
        trie, start = self._place(node)
        return trie.left(start) <= self.config.stop_mass

    def remaining_mass(self) -> float:
        """The probability of all solutions that the search did not draw."""
        if self.config.expand_by_rollouts:
            return self._place(0)[0].left()
        ended = math.fsum(node.mass or 0.0 for node in self.nodes if node.terminal is not None)
        return max(0.0, 1.0 - ended)

    def set_masses(self, end: int) -> None:
        """Set the probabilities of the nodes on the path to `end` that do not have one."""
        for id in path_to(self.nodes, end):
            node = self.nodes[id]
            if node.mass is not None:
                continue
            if self.config.expand_by_rollouts:
                node.mass = self._place(0)[0].probability(solution_ids(self.nodes, id))
            else:
                before = self.nodes[node.parent].mass if node.parent else 1.0
                step = self._place(node.parent)[0].probability(node.token_ids)
                node.mass = (before or 0.0) * step

    def settle(self, ends: Iterable[int]) -> None:
        """Mark the nodes on the paths to `ends` as settled when nothing below them can change. An
        exhausted node is not expanded again, but its steps may still be."""
        for end in ends:
            for id in reversed([0, *path_to(self.nodes, end)]):
                node = self.nodes[id]
                done = node.expanded and all(self.nodes[child].settled for child in node.children)
                if self.config.expand_by_rollouts:
                    done = (done and not self.config.widens) or self.exhausted(id)
                elif self.config.widens:
                    done = done and self.exhausted(id)
                node.settled = node.settled or done
