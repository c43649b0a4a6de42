"""The line of accuracy over the logarithm of compute."""

from __future__ import annotations

import math
import random

import pytest

from trainer.measures.scaling import slope_per_doubling


def test_a_slope_by_hand() -> None:
    """x = 0, 1, 2 and accuracies 1/4, 1/2, 1/2: the slope is (1/2 - 1/4) / 2 = 1/8. The problems'
    own slopes are 0 (always solved), 1/2, 0 and 0 (never)."""
    correct = [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, False, False],
    ]
    found = slope_per_doubling([3.0, 6.0, 12.0], correct)
    assert found.value == pytest.approx(1 / 8) and found.n == 4
    # variance of the mean of 0, 1/2, 0, 0: (3/64 + 9/64) x 4 / 3 / 16 = 1/64
    assert found.high - found.value == pytest.approx(1.959964 / 8, rel=1e-5)
    one = slope_per_doubling([3.0, 6.0, 12.0], correct, ["a", "a", "b", "b"])
    # clusters' residual sums 1/4 and -1/4: 1/8 x 2 / 1 / 16 = 1/64, as it happens
    assert one.high - one.value == pytest.approx(1.959964 / 8, rel=1e-5)


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    """Accuracy 0.2, 0.3, 0.4 at 1, 2, 4, with nested outcomes: the true slope is 0.1."""
    rng = random.Random(5)
    hits = 0
    for _ in range(400):
        luck = [rng.random() for _ in range(200)]
        correct = [[u < p for u in luck] for p in (0.2, 0.3, 0.4)]
        found = slope_per_doubling([1, 2, 4], correct)
        hits += found.low <= 0.1 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_slope_needs_two_computes() -> None:
    for compute in ([8.0], [8.0, 8.0]):
        with pytest.raises(ValueError, match="at least two different computes"):
            slope_per_doubling(compute, [[True]] * len(compute))
    assert math.isfinite(slope_per_doubling([1.0, 2.0], [[True], [False]]).value)
