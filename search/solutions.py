"""Greedy decoding and N free samples of whole solutions, scored or not: best-of-N's raw material.

A tree of depth one: the root and one node a solution. The answers at smaller N are read from
nested subsets of the same samples (`choose`), so one run serves every budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data.types import StopReason, Usage
from rewards.aggregate import AGGREGATES
from search.base import (
    Node,
    SampleRequest,
    ScoreRequest,
    SearchResult,
    Session,
    Snapshot,
    answer_value,
    solution_ids,
)

SELECTIONS = ("score", "majority", "first")


@dataclass(frozen=True, kw_only=True)
class SolutionsConfig:
    """Granularity: solution. `budgets` are values of N, ascending; the largest is sampled.

    `select`: "score" takes the best process reward (aggregated by `aggregate`), "majority" the
    most frequent solution text, "first" the first sample (plain sampling, or greedy at
    temperature 0). `likelihood_weight` is that of `search.base.answer_value`, for "score".
    """

    budgets: tuple[int, ...] = (1,)
    temperature: float = 1.0
    select: str = "first"
    aggregate: str = "last"
    likelihood_weight: float = 0.0
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise ValueError(f"select is {self.select!r}; allowed: {', '.join(SELECTIONS)}")
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"aggregate is {self.aggregate!r}; allowed: {', '.join(AGGREGATES)}")
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets is {self.budgets}; it must be ascending and not empty")


async def search_solutions(session: Session, config: SolutionsConfig) -> SearchResult:
    """Sample max(budgets) solutions and choose one for every budget. Equal solutions are scored
    once, when the first of them is seen."""
    engine = session.engine
    [sampled] = await session.sample(
        [
            SampleRequest(
                node=0,
                prefix=session.prompt_ids,
                n=config.budgets[-1],
                stop_at_step=False,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
            )
        ]
    )
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for sample in sampled.samples:
        node = Node(
            id=len(nodes),
            parent=0,
            token_ids=sample.token_ids,
            text=engine.decode(sample.token_ids),
            logprob=sample.logprob,
            terminal=sample.stop_reason,
        )
        nodes.append(node)
        nodes[0].children.append(node.id)
    lengths = [len(node.token_ids) for node in nodes[1:]]
    reward_usage = [Usage() for _ in lengths]
    if config.select == "score":
        first = {node.token_ids: node.id for node in reversed(nodes[1:])}
        distinct = [node for node in nodes[1:] if first[node.token_ids] == node.id]
        scored = await session.score(
            [
                ScoreRequest(
                    node=node.id,
                    sequence=session.prompt_ids + node.token_ids,
                    step_ends=tuple(
                        len(session.prompt_ids) + end for end in engine.step_ends(node.token_ids)
                    ),
                )
                for node in distinct
            ]
        )
        aggregate = AGGREGATES[config.aggregate]
        for node, result in zip(distinct, scored, strict=True):
            node.score = aggregate(result.scores)
            reward_usage[node.id - 1] = Usage(reward=result.usage)
        for node in nodes[1:]:
            node.score = nodes[first[node.token_ids]].score
    snapshots: list[Snapshot] = []
    for budget in config.budgets:
        answer = nodes[choose(nodes[1 : budget + 1], config.select, config.likelihood_weight)]
        snapshots.append(
            Snapshot(
                budget=budget,
                answer=engine.decode(solution_ids(nodes, answer.id)),
                answer_node=answer.id,
                truncated=answer.terminal is StopReason.LENGTH,
                usage=sum(
                    reward_usage[:budget],
                    Usage(policy=engine.sample_usage(len(session.prompt_ids), lengths[:budget])),
                ),
            )
        )
    return SearchResult(
        problem=session.problem,
        strategy="solutions",
        nodes=tuple(nodes),
        snapshots=tuple(snapshots),
        usage=session.usage,
    )


def choose(nodes: Sequence[Node], select: str, likelihood_weight: float = 0.0) -> int:
    """The chosen node's id. Truncated solutions lose to finished ones; the earlier sample wins
    a tie, so nested subsets agree."""
    finished = [node for node in nodes if node.terminal is StopReason.END_OF_SOLUTION]
    candidates = finished or list(nodes)
    if select == "score":
        return max(
            candidates,
            key=lambda node: answer_value(node.score or 0.0, node.logprob, likelihood_weight),
        ).id
    if select == "majority":
        votes = Counter(node.text for node in candidates)
        return max(candidates, key=lambda node: votes[node.text]).id
    return nodes[0].id
