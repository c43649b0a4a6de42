"""Beam search, diverse verifier tree search (DVTS) and lookahead search over reasoning steps.

The granularity is the step. Each round expands every open path, judges the new steps and keeps the
best paths. A finished path competes with its value and is never expanded. A continuation is always
a child of the node that it was sampled from.

Sources: step-level beam search and lookahead (2408.03314, section 5.2); DVTS (Beeching et al. 2024,
"Scaling test-time compute with open models").
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
    """Beam search: every beam gets M = `expansions` samples per round, and the N best paths go on.

    The root gets N x M samples.
    """

    budgets: tuple[int, ...] = (4,)
    """Number of beams N; one number only, as another N needs another search."""
    expansions: int = 4
    """Samples M per beam and round."""
    lookahead: int = 0
    """Greedy steps added to a path before it is judged; 0: none."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)
        _check(self.expansions, self.lookahead)


@dataclass(frozen=True, kw_only=True)
class DVTSConfig:
    """DVTS: N / `expansions` subtrees begin with different first steps.

    In each round, each subtree keeps the best path of its samples.
    """

    budgets: tuple[int, ...] = (16,)
    """Number of samples per round N; one number only, as another N needs another search."""
    expansions: int = 4
    """Samples M per subtree and round."""
    lookahead: int = 0
    """Greedy steps added to a path before it is judged; 0: none."""

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
    """Run beam search: one group of paths, of which the N best go on."""
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
    """Run DVTS: one group of paths per distinct first step, for the best first steps. A group stays
    in the subtree of its first step."""
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
    """A tree that grows round by round, and the values of its nodes."""

    def __init__(self, session: Session, expansions: int, lookahead: int) -> None:
        self.session = session
        self.expansions = expansions
        self.lookahead = lookahead
        self.nodes = new_tree()
        self.values: dict[int, float] = {}

    def is_open(self, groups: Sequence[Sequence[int]]) -> bool:
        """Whether a path of the groups is not finished."""
        return any(self.nodes[id].terminal is None for group in groups for id in group)

    async def expand(self, groups: Sequence[Sequence[int]], n: int) -> list[list[int]]:
        """Sample `n` steps below every open path. Returns the candidates of each group: its
        finished paths and the children of its open paths."""
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
        """Judge the new nodes. With a lookahead, a node gets the score at the end of its lookahead.
        A path that was cut off has the value 0."""
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
            elif nodes[id].terminal is None:  # the end of the lookahead has no score
                nodes[id].terminal = StopReason.BAD_SCORE
                nodes[id].bad_score = True

    async def _one_step_ahead(self, ends: dict[int, int]) -> dict[int, int]:
        """Add a greedy step after the end of each path, beside the tree. Returns the new ends."""
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
        """Up to `most` candidates with the largest values, in descending order. The earlier one
        wins a tie. Candidates without a value are left out."""
        valued = [id for id in candidates if id in self.values]
        return sorted(valued, key=lambda id: -self.values[id])[:most]

    async def finish(self, name: str, budget: int, end: SearchEnd | None) -> SearchResult:
        """Take the answer at `budget` and make the result of the search."""
        snapshot = await Answers(self.session, self.nodes).take(budget)
        return finish(self.session, name, self.nodes, [snapshot], end or SearchEnd.COMPLETE)
