"""ProcessBench's metric by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trainer.measures.first_errors import (
    JudgedSolution,
    choose_threshold,
    harmonic_mean,
    locate,
    measure_first_errors,
)


def judged(*rows: tuple[tuple[float, ...], int]) -> list[JudgedSolution]:
    return [
        JudgedSolution(group=str(i), scores=scores, label=label)
        for i, (scores, label) in enumerate(rows)
    ]


SOLUTIONS = judged(
    ((0.9, 0.3, 0.2), 1),  # found below 0.5
    ((0.4, 0.9), 1),  # found too early below 0.5
    ((0.9, 0.8, 0.7), 2),  # missed below 0.5
    ((0.6, 0.2), 1),
    ((0.9, 0.9), -1),
    ((0.9, 0.45, 0.9), -1),  # a false alarm below 0.5
)


def test_the_first_step_below_the_threshold_is_located() -> None:
    assert locate(SOLUTIONS, 0.5).tolist() == [1, 0, -1, 1, -1, 1]
    assert locate(SOLUTIONS, 0.3).tolist() == [2, -1, -1, 1, -1, -1]  # 0.3 is not below 0.3
    assert locate(SOLUTIONS, 0.0).tolist() == [-1] * 6


def test_accuracies_and_f1_by_hand() -> None:
    found = measure_first_errors(SOLUTIONS, 0.5, seed=0)
    assert found.erroneous and found.correct and found.f1
    assert (found.erroneous.value, found.erroneous.n) == (2 / 4, 4)
    assert (found.correct.value, found.correct.n) == (1 / 2, 2)
    assert found.f1.value == pytest.approx(2 * 0.5 * 0.5 / 1)
    assert 0 <= found.f1.low < found.f1.value < found.f1.high <= 1
    # erroneous 1/4, correct 1: 2/4 / (5/4)
    other = measure_first_errors(SOLUTIONS, 0.3, seed=0)
    assert other.f1 and other.f1.value == pytest.approx(2 / 5)
    assert harmonic_mean(0.0, 0.0) == 0.0
    one = measure_first_errors([replace(s, group="a") for s in SOLUTIONS], 0.5, seed=0).f1
    assert one and (one.low, one.high) == (0.0, 1.0)


def test_without_one_kind_there_is_no_f1() -> None:
    found = measure_first_errors(SOLUTIONS[:4], 0.5, seed=0)
    assert found.erroneous and (found.correct, found.f1) == (None, None)
    assert measure_first_errors([], 0.5, seed=0).erroneous is None


def test_the_threshold_is_the_best_on_the_solutions_given() -> None:
    # 0.4 finds the first and the fourth (1/2) without a false alarm (1): F1 2/3. Above it the
    # second is found too early, then there is a false alarm; at 0.3 only the fourth is found.
    assert choose_threshold(SOLUTIONS) == 0.4
    # All scores equal: above them everything is called wrong at its first step.
    same = judged(((0.5, 0.5), 0), ((0.5,), 0), ((0.5,), -1))
    assert choose_threshold(same) == 0.5  # nothing is below it: F1 0 either way, the lower one
    with pytest.raises(ValueError, match="of 4 validation solutions 4 are erroneous"):
        choose_threshold(SOLUTIONS[:4])


def test_many_scores_are_thinned_to_quantiles() -> None:
    many = judged(*(((i / 5000, 0.99), 0 if i < 2500 else -1) for i in range(5000)))
    threshold = choose_threshold(many)
    assert math.isclose(threshold, 0.5, abs_tol=1e-3)
