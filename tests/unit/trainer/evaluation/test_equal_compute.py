"""Budgets of about equal cost, by hand."""

from __future__ import annotations

import itertools

from trainer.evaluation.equal_compute import equal_compute_grid, measured_counts


def test_the_grid_holds_the_budgets_and_steps_of_at_most_a_32nd() -> None:
    assert equal_compute_grid((2, 8)) == (1, 2, 3, 4, 5, 6, 7, 8)
    grid = equal_compute_grid((9, 36, 144))
    assert {9, 36, 144} <= set(grid) and len(grid) <= 40
    assert max(b - a for a, b in itertools.pairwise(grid)) <= 144 // 32


def test_self_consistency_is_measured_at_the_usual_counts() -> None:
    assert measured_counts((4, 16, 64)) == (3, 4, 5, 10, 16, 64)
    assert measured_counts((2, 8)) == (2, 3, 5, 8)
    assert measured_counts((2,)) == (2,)
