"""Beam search, diverse verifier tree search (DVTS) and lookahead search over reasoning steps.

Granularity: step. Each round every open beam is expanded, the new steps are judged, and the best go
on. A finished beam stays in the beam with its score and is never expanded; a continuation hangs
below the very node it was sampled from. Sources: step-level beam search and lookahead (2408.03314,
section 5.2); DVTS (Beeching et al. 2024, "Scaling test-time compute with open models").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.types import StopReason
from search.answers import Answers
from search.base import SearchEnd, SearchResult, Session, finish
from search.growth import add_sample, continuation, new_tree
from search.guidance import judge
from search.settings import check_budgets


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Every beam gets `expansions` samples per round (the root N x M), and the N best paths are
    kept.
    """

    budgets: tuple[int, ...] = (4,)
    """Numbers of beams N; each needs a search of its own."""
    expansions: int = 4
    """Samples M per beam and round."""
    lookahead: int = 0
    """Greedy steps a path is continued by before it is judged; 0: it is judged as it is."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)
        _check(self.expansions, self.lookahead)


@dataclass(frozen=True, kw_only=True)
class DVTSConfig:
    """N / `expansions` subtrees begin with different first steps. Each keeps the best of its
    samples.
    """

    budgets: tuple[int, ...] = (16,)
    """Numbers of samples per round N; each needs a search of its own."""
    expansions: int = 4
    """Samples M per subtree and round."""
    lookahead: int = 0
    """Greedy steps a path is continued by before it is judged; 0: it is judged as it is."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)
        _check(self.expansions, self.lookahead)
        if self.budgets[0] % self.expansions:
            raise ValueError(
                f"budgets is {self.budgets}; it must be a multiple of expansions, {self.expansions}"
            )


def _check(expansions: int, lookahead: int) -> None:
    if expansions < 1:
        raise ValueError(f"expansions is {expansions}; it must be at least 1")
    if lookahead < 0:
        raise ValueError(f"lookahead is {lookahead}; it must not be negative")


async def search_beam(session: Session, config: BeamConfig) -> SearchResult:
    """One group that keeps the N best."""
    rounds = _Rounds(session, config.expansions, config.lookahead)
    [beams] = config.budgets
    groups = [[0]]
    end = session.exhausted()
    while end is None and rounds.is_open(groups):
        n = beams * config.expansions if groups == [[0]] else config.expansions
        below = await rounds.expand(groups, n)
        groups = [rounds.best(below[0], beams)]
        end = session.exhausted()
    return await rounds.finish("beam", beams, end)


async def search_dvts(session: Session, config: DVTSConfig) -> SearchResult:
    """A group for each of the best distinct first steps; none ever enters another's subtree."""
    rounds = _Rounds(session, config.expansions, config.lookahead)
    [n] = config.budgets
    groups = [[0]]
    end = session.exhausted()
    while end is None and rounds.is_open(groups):
        if groups == [[0]]:
            [below] = await rounds.expand(groups, n)
            groups = [[id] for id in rounds.best(below, n // config.expansions)]
        else:
            below = await rounds.expand(groups, config.expansions)
            groups = [rounds.best(group, 1) for group in below]
        end = session.exhausted()
    return await rounds.finish("dvts", n, end)


class _Rounds:
    """The tree that grows round by round."""

    def __init__(self, session: Session, expansions: int, lookahead: int) -> None:
        self.session = session
        self.expansions = expansions
        self.lookahead = lookahead
        self.nodes = new_tree()
        self.values: dict[int, float] = {}

    def is_open(self, groups: Sequence[Sequence[int]]) -> bool:
        return any(self.nodes[id].terminal is None for group in groups for id in group)

    async def expand(self, groups: Sequence[Sequence[int]], n: int) -> list[list[int]]:
        """Sample `n` steps below every open path; each group's candidates: its finished paths and
        the children of its open ones."""
        session, nodes = self.session, self.nodes
        paths = [id for group in groups for id in group if nodes[id].terminal is None]
        first_new = len(nodes)
        results = await session.sample([continuation(session, nodes, id, n) for id in paths])
        for id, result in zip(paths, results, strict=True):
            nodes[id].expansions += 1
            for sample in result.samples:
                add_sample(session, nodes, id, sample)
        await self._value(list(range(first_new, len(nodes))))
        return [
            [
                candidate
                for id in group
                for candidate in ([id] if nodes[id].terminal else nodes[id].children)
            ]
            for group in groups
        ]

    async def _value(self, new: Sequence[int]) -> None:
        """Judge new nodes: at the end of a lookahead where there is one. A path that was cut off
        is worth 0."""
        nodes = self.nodes
        cut = [id for id in new if nodes[id].cut_off]
        ends = {id: id for id in new if id not in cut}
        for _ in range(self.lookahead):
            ahead = [id for id, end in ends.items() if nodes[end].terminal is None]
            ends |= await self._one_step_ahead({id: ends[id] for id in ahead})
        for end in [*cut, *ends.values()]:
            if nodes[end].cut_off:
                nodes[end].score = 0.0
        await judge(self.session, nodes, [e for e in ends.values() if nodes[e].score is None])
        for id in cut:
            self.values[id] = 0.0
        for id, end in ends.items():
            score = nodes[end].score
            if score is not None:
                self.values[id] = score
            elif nodes[id].terminal is None:  # nothing is known of where it leads
                nodes[id].terminal = StopReason.BAD_SCORE
                nodes[id].bad_score = True

    async def _one_step_ahead(self, ends: dict[int, int]) -> dict[int, int]:
        """The greedy step after each path's end, beside the tree."""
        if not ends:
            return {}
        session, nodes = self.session, self.nodes
        results = await session.sample(
            [continuation(session, nodes, end, 1, greedy=True) for end in ends.values()]
        )
        return {
            id: add_sample(session, nodes, end, result.samples[0], beside=True)
            for (id, end), result in zip(ends.items(), results, strict=True)
        }

    def best(self, candidates: Sequence[int], most: int) -> list[int]:
        """The `most` best candidates that have a value, best first; of equals the earlier."""
        valued = [id for id in candidates if id in self.values]
        return sorted(valued, key=lambda id: -self.values[id])[:most]

    async def finish(self, name: str, budget: int, end: SearchEnd | None) -> SearchResult:
        snapshot = await Answers(self.session, self.nodes).take(budget)
        return finish(self.session, name, self.nodes, [snapshot], end or SearchEnd.COMPLETE)
