"""Intervals and tests against numbers worked out by hand or by another library."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import roc_auc_score

from trainer.statistics import (
    accuracy,
    brier_skill,
    paired_difference,
    paired_p_value,
    reliability,
    variance_of_mean,
    within_problem_auroc,
)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.96 (Wilson 1927)
    estimate = accuracy([True] * 8 + [False] * 2)
    assert (estimate.value, estimate.n) == (0.8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    with pytest.raises(ValueError, match="no problems"):
        accuracy([])


def test_paired_difference_by_hand() -> None:
    # differences 1, 0, 0, -1, 1: mean 0.2, standard deviation sqrt(2.8 / 4)
    first, second = [True, True, False, False, True], [False, True, False, True, False]
    estimate = paired_difference(first, second)
    half = 1.959964 * (0.7 / 5) ** 0.5
    assert estimate.value == pytest.approx(0.2)
    assert (estimate.low, estimate.high) == pytest.approx((0.2 - half, 0.2 + half))
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([True], [True, False])


def test_problems_of_one_group_are_not_independent() -> None:
    # Residuals 1/2, 1/2, -1/2, -1/2 sum to 1 and -1 in the groups: 2 / 1 x (1 + 1) / 4^2. Alone:
    # 4 / 3 x (4 / 4) / 4^2 = 1 / 12, so the four count as 4 / 3.
    values, groups = [1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"]
    assert variance_of_mean(values, groups) == pytest.approx(0.25)
    assert variance_of_mean(values) == pytest.approx(1 / 12)
    assert variance_of_mean(values, ["a", "b", "c", "d"]) == variance_of_mean(values)
    assert variance_of_mean(values, ["a"] * 4) == 0.0
    outcomes = [True, True, False, False]
    estimate = paired_difference(outcomes, [False] * 4, groups)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.959964 * 0.5)
    # Every problem three times is no more than once: the interval is that of 30 problems.
    thrice = accuracy(([True] * 20 + [False] * 10) * 3, [str(i) for i in range(30)] * 3)
    once = accuracy([True] * 20 + [False] * 10)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=3e-3)
    assert thrice.n == 90


def test_exact_mcnemar_by_hand() -> None:
    # 5 wins, 1 loss: P(X >= 5), X ~ Bin(6, 1/2) = (6 + 1) / 64
    candidate = [True] * 5 + [False] + [True] * 10 + [False] * 10
    incumbent = [False] * 5 + [True] + [True] * 10 + [False] * 10
    assert paired_p_value(candidate, incumbent) == (pytest.approx(7 / 64), 5, 1)
    assert paired_p_value([True], [True]) == (1.0, 0, 0)


def test_the_paired_test_flips_groups_not_problems() -> None:
    # margins of the groups: a +3, b +2, c -1: totals of the 8 flips are 6, 4, 2, 0, 0, -2, -4, -6
    # and 3 + 2 - 1 = 4, which two of them reach; problems alone: P(X >= 5), X ~ Bin(6, 1/2)
    candidate = [True, True, True, True, True, False]
    incumbent = [False, False, False, False, False, True]
    groups = ["a", "a", "a", "b", "b", "c"]
    assert paired_p_value(candidate, incumbent, groups) == (pytest.approx(2 / 8), 5, 1)
    assert paired_p_value(candidate, incumbent)[0] == pytest.approx(7 / 64)
    # a group that is even flips nothing
    assert paired_p_value([True, False], [False, True], ["a", "a"]) == (1.0, 1, 1)


def test_auroc_compares_within_problems_only() -> None:
    generator = random.Random(1)
    groups = []
    expected_wins, expected_pairs = 0.0, 0
    for _ in range(30):
        labels = [generator.random() < 0.5 for _ in range(12)]
        scores = [generator.choice([0.1, 0.4, 0.7]) + 0.2 * label for label in labels]
        groups.append([(s, float(y)) for s, y in zip(scores, labels, strict=True)])
        pairs = sum(labels) * (12 - sum(labels))
        expected_pairs += pairs
        if pairs:
            expected_wins += float(roc_auc_score(labels, scores)) * pairs
    estimate, pairs = within_problem_auroc(groups, seed=0)
    assert estimate is not None and pairs == expected_pairs
    assert estimate.value == pytest.approx(expected_wins / expected_pairs)
    assert estimate.low < estimate.value < estimate.high
    # An offset per problem, which a global AUROC would punish, changes nothing.
    moved = [[(s + i, r) for s, r in group] for i, group in enumerate(groups)]
    again, _ = within_problem_auroc(moved, seed=0)
    assert again is not None and again.value == pytest.approx(estimate.value)
    assert within_problem_auroc([[(0.5, 1.0), (0.2, 1.0)]], seed=0) == (None, 0)


def test_brier_skill_and_calibration_by_hand() -> None:
    # base rate 0.5: MSE 0.25; scores miss by 0.2 each: MSE 0.04
    assert brier_skill([0.2, 0.8], [0.0, 1.0]) == pytest.approx(1 - 0.04 / 0.25)
    assert brier_skill([0.5, 0.5], [0.0, 1.0]) == pytest.approx(0.0)
    # bin 0.2: predicted 0.25, observed 0.5 (2 rows); bin 0.9: predicted 0.95, observed 1 (1 row)
    error, bins = reliability([0.24, 0.26, 0.95], [0.0, 1.0, 1.0])
    assert [(b.predicted, b.observed, b.count) for b in bins] == [
        (pytest.approx(0.25), 0.5, 2),
        (pytest.approx(0.95), 1.0, 1),
    ]
    assert error == pytest.approx((2 * 0.25 + 0.05) / 3)
