"""Find the budget at which one strategy costs about as much as another."""

from __future__ import annotations

from trainer.measures.results import AccuracyRow


def equal_compute_grid(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets, and further values of N at distances of at most 1/32 of the largest. Some N then
    costs nearly as much as a tree search."""
    most = budgets[-1]
    return tuple(sorted({*budgets, *range(most, 0, -max(1, most // 32))}))


def equal_flops(target: AccuracyRow, rows: list[AccuracyRow]) -> AccuracyRow:
    """The row whose FLOPs per problem are nearest to those of the target."""
    return min(rows, key=lambda row: abs(row.flops - target.flops))
