"""Find the budget at which one strategy costs about as much as another."""

from __future__ import annotations

from trainer.measures.results import AccuracyRow

SELF_CONSISTENCY = (3, 5, 10)  # the numbers of samples that others report


def measured_counts(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets of best of N and of self-consistency, up to the largest of best of N."""
    return tuple(sorted({*budgets, *(n for n in SELF_CONSISTENCY if n < budgets[-1])}))


def equal_compute_grid(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets, and further values of N at distances of at most 1/32 of the largest. Some N then
    costs nearly as much as a tree search."""
    most = budgets[-1]
    return tuple(sorted({*budgets, *range(most, 0, -max(1, most // 32))}))


def equal_flops(target: AccuracyRow, rows: list[AccuracyRow]) -> AccuracyRow:
    """The row whose FLOPs per problem are nearest to those of the target."""
    return min(rows, key=lambda row: abs(row.flops - target.flops))
