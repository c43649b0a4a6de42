"""How the accuracy of a policy's searches grows with their compute."""

from __future__ import annotations

from collections.abc import Sequence

from search.base import SearchResult
from trainer.evaluation.policies import groups_of
from trainer.measures.results import AccuracyRow, ScalingFit
from trainer.measures.scaling import slope_per_doubling
from trainer.searching.workbench import Workbench, correct_at


def fit_of_searches(
    workbench: Workbench, rows: Sequence[AccuracyRow], results: Sequence[SearchResult]
) -> tuple[ScalingFit, ...]:
    """The fit over the rows of one strategy, which are of the same results at several budgets.
    Empty if no two of them differ in their FLOPs, or one has none."""
    flops = [row.flops for row in rows]
    if len(set(flops)) < 2 or min(flops) <= 0:
        return ()
    return (
        ScalingFit(
            policy=rows[0].policy,
            strategy=rows[0].strategy,
            points=len(rows),
            low_flops=min(flops),
            high_flops=max(flops),
            slope=slope_per_doubling(
                flops,
                [correct_at(workbench, results, row.budget) for row in rows],
                groups_of(result.problem for result in results),
            ),
        ),
    )
