"""Distinct solutions, drawn without replacement for best-of-N and votes.

Independent samples of a policy that is sure of itself are often the same solution again. This
strategy draws each solution once (incremental sampling without replacement over the token trie,
2002.09067; search/token_trie.py). The granularity is the solution, and the tree has depth one, as
that of independent samples (search/strategies/solutions.py). The answer at a smaller N uses the
first N draws. Their order is that of independent samples without the repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass

from search.answers import choose_for
from search.base import SearchEnd, SearchResult, Session, Snapshot, finish
from search.distinct_samples import DistinctRequest, draw_distinct
from search.growth import add_solution, continuation, new_tree
from search.guidance import judge_solutions
from search.settings import check_budgets
from search.token_trie import TokenTrie
from search.votes import is_settled


@dataclass(frozen=True, kw_only=True)
class WithoutReplacementConfig:
    """Distinct solutions. Between rounds, the search also stops at a limit of `SearchSettings`."""

    budgets: tuple[int, ...] = (1,)
    """Numbers of distinct solutions N, ascending; a smaller N takes the first N draws."""
    round_size: int = 1
    """Draws per round; with more, a problem needs fewer calls, but repetitions cost tokens."""
    stop_mass: float = 1e-6
    """Stop when at most this share of the policy's probability is undrawn; 0 to 1."""
    stop_when_settled: bool = True
    """Stop when the probability that is left cannot change the final answer."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=True)
        if self.round_size < 1:
            raise ValueError(f"round_size is {self.round_size}; it must be at least 1")
        if not 0 <= self.stop_mass <= 1:
            raise ValueError(f"stop_mass is {self.stop_mass}; it must be in [0, 1]")


async def search_without_replacement(
    session: Session, config: WithoutReplacementConfig
) -> SearchResult:
    """Draw up to max(budgets) distinct solutions and choose one for every budget."""
    nodes, trie = new_tree(), TokenTrie()
    snapshots: list[Snapshot] = []
    draws = 0  # repetitions inside a round included
    end: SearchEnd | None = None
    for budget in config.budgets:
        while len(nodes) <= budget and end is None:
            size = min(config.round_size, budget - len(nodes) + 1)
            session.share_after_call = (len(nodes) - 1 + size) / config.budgets[-1]
            request = continuation(session, nodes, 0, size, first_index=draws, whole=True)
            draws += size
            [samples] = await draw_distinct(session, [DistinctRequest(request=request, trie=trie)])
            fresh = [add_solution(session, nodes, sample) for sample in samples]
            for node in fresh:
                node.mass = trie.probability(node.token_ids)
            if session.settings.needs_scores:
                await judge_solutions(session, nodes, [node.id for node in fresh])
            if len(nodes) <= config.budgets[-1]:
                end = session.exhausted()
            if trie.left() <= config.stop_mass:
                end = SearchEnd.EXHAUSTED
            elif config.stop_when_settled and is_settled(session, nodes, left=trie.left()):
                end = end or SearchEnd.SETTLED
        answer = choose_for(session, nodes, [node.id for node in nodes[1:]])
        snapshots.append(
            Snapshot(
                budget=budget,
                answer=nodes[answer].text,
                answer_node=answer,
                truncated=not nodes[answer].finished,
                usage=session.usage,
            )
        )
    end = end or SearchEnd.COMPLETE
    return finish(session, "without_replacement", nodes, snapshots, end, remaining_mass=trie.left())
