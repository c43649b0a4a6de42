"""Greedy decoding, and N independent samples of whole solutions for best-of-N and votes.

The granularity is the solution. The tree has depth one: the root and one node per solution. The
answer at a smaller N uses the first N of the same samples, so one run serves every budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.types import ModelUsage, Usage
from search.answers import choose_for
from search.base import (
    Node,
    SearchEnd,
    SearchResult,
    Session,
    Snapshot,
    finish,
)
from search.growth import add_solution, continuation, new_tree
from search.guidance import judge_solutions
from search.read_prefixes import with_repeats
from search.settings import check_budgets
from search.votes import is_settled


@dataclass(frozen=True, kw_only=True)
class SolutionsConfig:
    """Whole solutions, sampled independently.

    Between rounds, the search stops at a limit of `SearchSettings`. With the answers majority and
    weighted_vote, it also stops when the remaining samples cannot change the final answer.
    """

    budgets: tuple[int, ...] = (1,)
    """Numbers of solutions N, ascending; the largest is sampled, a smaller N takes the first N."""
    round_size: int = 0
    """Solutions per round; 0: all in one round."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=True)
        if self.round_size < 0:
            raise ValueError(f"round_size is {self.round_size}; it must not be negative")


async def search_solutions(
    session: Session, config: SolutionsConfig, *, begun: Sequence[Node] = ()
) -> SearchResult:
    """Sample max(budgets) solutions and choose one for every budget. Equal solutions are judged
    once, in the round of the first of them. `begun` is the tree of a search in this session that
    sampled and judged fewer solutions; this search then samples only the others."""
    settings, most = session.settings, config.budgets[-1]
    nodes = list(begun) or new_tree()
    first: dict[tuple[int, ...], int] = {}  # the first node with these token ids
    for node in nodes[1:]:
        first.setdefault(node.token_ids, node.id)
    end = _early_end(session, nodes, most) if begun else None
    while len(nodes) <= most and end is None:
        done = len(nodes) - 1
        size = min(config.round_size or most, most - done)
        session.share_after_call = (done + size) / most
        fresh = await _sample(session, nodes, size)
        if settings.needs_scores:
            distinct = [id for id in fresh if first.setdefault(nodes[id].token_ids, id) == id]
            await judge_solutions(session, nodes, distinct)
            for id in fresh:
                known = nodes[first[nodes[id].token_ids]]
                nodes[id].score, nodes[id].bad_score = known.score, known.bad_score
        end = _early_end(session, nodes, most)
    lengths = [len(node.token_ids) for node in nodes[1:]]
    snapshots: list[Snapshot] = []
    for budget in config.budgets:
        taken = nodes[1 : budget + 1]
        answer = choose_for(session, nodes, [node.id for node in taken])
        judged = (session.node_usage.get(node.id, Usage()) for node in taken)
        sampled = _sampling_usage(session, lengths[:budget], config.round_size or most)
        snapshots.append(
            Snapshot(
                budget=budget,
                answer=nodes[answer].text,
                answer_node=answer,
                truncated=not nodes[answer].finished,
                usage=sum(judged, sampled),
            )
        )
    return finish(session, "solutions", nodes, snapshots, end or SearchEnd.COMPLETE)


def _early_end(session: Session, nodes: Sequence[Node], most: int) -> SearchEnd | None:
    """Why the search ends before it has sampled `most` solutions, or None."""
    left = most - len(nodes) + 1
    if left <= 0:
        return None
    end = session.exhausted()
    if end is None and is_settled(session, nodes, left=left):
        return SearchEnd.SETTLED
    return end


async def _sample(session: Session, nodes: list[Node], n: int) -> list[int]:
    """Add `n` more solutions. Returns the ids of their nodes."""
    [result] = await session.sample(
        [continuation(session, nodes, 0, n, first_index=len(nodes) - 1, whole=True)]
    )
    for sample in result.samples:
        add_solution(session, nodes, sample)
    return [node.id for node in nodes[-n:]]


def _sampling_usage(session: Session, lengths: list[int], round_size: int) -> Usage:
    """The cost of samples of these lengths, in tokens. Every round repeats the prompt."""
    engine, prompt = session.engine, len(session.prompt_ids)
    rounds = [
        engine.sample_usage(prompt, lengths[i : i + round_size])
        for i in range(0, len(lengths), round_size)
    ]
    repeats = [with_repeats(usage, prompt - 1, engine.prefix_flops) for usage in rounds[1:]]
    return Usage(policy=sum([*rounds[:1], *repeats], ModelUsage()))
