"""Intervals and tests against numbers worked out by hand or by another library."""

from __future__ import annotations

import pytest

from trainer.measures.statistics import (
    accuracy,
    paired_difference,
    paired_p_value,
    share_estimate,
    variance_of_mean,
)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.96 (Wilson 1927)
    estimate = accuracy([True] * 8 + [False] * 2)
    assert (estimate.value, estimate.n) == (0.8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    with pytest.raises(ValueError, match="needs at least one problem"):
        accuracy([])


def test_few_clusters_leave_wide_intervals() -> None:
    """Clusters without variance count as one problem each: z = 1.96, n / (n + z^2)."""
    correct = [True] * 100
    two = accuracy(correct, ["a"] * 50 + ["b"] * 50)
    assert (two.low, two.high) == pytest.approx((2 / (2 + 1.959964**2), 1.0))
    one = accuracy([True] * 50 + [False] * 50, ["a"] * 100)
    assert one.low < 0.1 and one.high > 0.9
    assert accuracy(correct).low > 0.96  # 100 independent problems
    difference = paired_difference(correct, [False] * 100, ["a"] * 100)
    assert (difference.low, difference.high) == (-1.0, 1.0)


def test_paired_difference_by_hand() -> None:
    # differences 1, 0, 0, -1, 1: mean 0.2, standard deviation sqrt(2.8 / 4)
    first, second = [True, True, False, False, True], [False, True, False, True, False]
    estimate = paired_difference(first, second)
    half = 1.959964 * (0.7 / 5) ** 0.5
    assert estimate.value == pytest.approx(0.2)
    assert (estimate.low, estimate.high) == pytest.approx((0.2 - half, 0.2 + half))
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([True], [True, False])


def test_samples_without_a_differing_pair_leave_an_interval() -> None:
    """0 of 96 clusters: Wilson's upper end is z^2 / (96 + z^2) = 3.8415 / 99.8415."""
    same = [True, False] * 96
    groups = [str(i // 2) for i in range(192)]
    estimate = paired_difference(same, same, groups)
    assert estimate.value == 0.0
    assert (estimate.low, estimate.high) == pytest.approx((-0.038476, 0.038476), abs=1e-6)
    always = paired_difference([True] * 96, [False] * 96)
    assert (always.low, always.high) == pytest.approx((1 - 0.038476, 1.0), abs=1e-6)


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


def test_shares_have_intervals_within_0_and_1() -> None:
    # Shares of 0 and 1 alone are outcomes: Wilson's interval of 8 of 10, with the variance
    # estimated by n - 1: 0.16 / 9, so that it counts as 9.
    estimate = share_estimate([1.0] * 8 + [0.0] * 2)
    z2 = 1.959964**2
    half = 1.959964 * (0.16 / 9 + z2 / 324) ** 0.5 / (1 + z2 / 9)
    centre = (0.8 + z2 / 18) / (1 + z2 / 9)
    assert (estimate.value, estimate.n) == (pytest.approx(0.8), 10)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))
    # Without variance every cluster is one outcome: z^2 / (n + z^2) beside 0.
    nothing = share_estimate([0.0] * 6, ["a", "a", "b", "b", "c", "c"])
    assert (nothing.low, nothing.high) == pytest.approx((0.0, z2 / (3 + z2)))
    # Halves that never vary are surer than coins that do.
    even = share_estimate([0.4, 0.6] * 5)
    assert even.high - even.low < share_estimate([0.0, 1.0] * 5).high - 0.5
