"""Standard errors and intervals of labels, computed by hand, and exact coverage at small counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from search.labellers.evidence import Evidence, wilson_interval, within_prediction
from search.laplace import laplace_error

COUNTS = (1, 2, 3, 4, 6, 8)
RATES = (np.arange(1000) + 0.5) / 1000


def test_soft_and_hard_by_hand() -> None:
    evidence = Evidence(correct=1, count=2)
    assert evidence.label(hard=False) == 0.5 and evidence.label(hard=True) == 1.0
    # p = 2/4: sqrt(1/4 / 2); hard: 1 - (1/2)^2 = 3/4, sqrt(3/16)
    assert evidence.standard_error(hard=False) == pytest.approx(math.sqrt(1 / 8))
    assert evidence.standard_error(hard=True) == pytest.approx(math.sqrt(3) / 4)
    assert Evidence(correct=0, count=3).label(hard=True) == 0.0
    # 0 of 8: p = 1/10
    assert laplace_error(0.0, 8) == pytest.approx(math.sqrt(0.09 / 8))


def test_wilson_by_hand() -> None:
    # z^2 = 3.841459; 0 of 1: the upper end is z^2 / (1 + z^2)
    low, high = wilson_interval(0.0, 1)
    assert low == 0.0 and high == pytest.approx(3.841459 / 4.841459, abs=1e-6)
    # 4 of 8: 1/2 -+ z sqrt(1/32 + z^2/256) / (1 + z^2/8) = 1/2 -+ 0.284777
    low, high = wilson_interval(0.5, 8)
    assert (low, high) == pytest.approx((0.215215, 0.784785), abs=1e-5)
    for n in COUNTS:
        assert wilson_interval(0.0, n)[0] == 0.0 and wilson_interval(1.0, n)[1] == 1.0


def coverage(intervals: list[tuple[float, float]]) -> np.ndarray:
    """The coverage for each rate, when k correct of len(intervals) - 1 give the k-th interval."""
    n = len(intervals) - 1
    inside = np.array([(low <= RATES) & (high >= RATES) for low, high in intervals])
    return (stats.binom.pmf(np.arange(n + 1)[:, None], n, RATES) * inside).sum(0)


@pytest.mark.parametrize("n", COUNTS)
def test_wilson_covers_nearest_to_95_on_average(n: int) -> None:
    def beta(k: int, a: float) -> tuple[float, float]:
        low = 0.0 if k == 0 else float(stats.beta.ppf(0.025, k + a, n - k + a))
        high = 1.0 if k == n else float(stats.beta.ppf(0.975, k + a, n - k + a))
        return low, high

    wilson = coverage([wilson_interval(k / n, n) for k in range(n + 1)])
    jeffreys = coverage([beta(k, 0.5) for k in range(n + 1)])
    for a, b in ((1, 1), (0.5, 0.5), (0.3, 0.6), (0.2, 1)):
        weight = stats.beta.pdf(RATES, a, b)
        ours, theirs = ((c * weight).sum() / weight.sum() for c in (wilson, jeffreys))
        assert 0.953 < ours < 0.965
        assert ours < theirs + 0.002
    assert wilson.min() > 0.79  # the coverage at the worst V, as the docstring says
    assert jeffreys.min() > 0.85


def test_the_prediction_interval_becomes_wilsons_as_the_reference_grows() -> None:
    for n in COUNTS:
        for k in range(n + 1):
            low, high = wilson_interval(k / n, n)
            for rate in np.linspace(0, 1, 41):
                if min(abs(rate - low), abs(rate - high)) > 1e-3:
                    inside = low <= rate <= high
                    assert within_prediction(k / n, n, round(rate * 10**8), 10**8) == inside


def test_the_prediction_interval_by_hand() -> None:
    # 4 of 4 and K of 4: P = (4 + K) / 8, z sqrt(P (1 - P) / 2)
    # K = 1: P = 5/8, 1.96 x 0.3423 = 0.671 < 0.75; K = 2: P = 3/4, 1.96 x 0.3062 = 0.600 > 0.5
    assert not within_prediction(1.0, 4, 1, 4)
    assert within_prediction(1.0, 4, 2, 4)
    assert within_prediction(0.0, 4, 0, 256) and within_prediction(1.0, 4, 256, 256)


@pytest.mark.parametrize("reference", [16, 256])
def test_prediction_intervals_cover_about_95_whatever_the_reference(reference: int) -> None:
    """If a reference of 16 rollouts counted as the truth, right labels would look wrong."""
    n = 8
    chances, naive = [], []
    for rate in (np.arange(40) + 0.5) / 40:
        p_label = stats.binom.pmf(np.arange(n + 1), n, rate)
        p_reference = stats.binom.pmf(np.arange(reference + 1), reference, rate)
        inside = [
            [within_prediction(k / n, n, c, reference) for c in range(reference + 1)]
            for k in range(n + 1)
        ]
        taken = [
            [low <= c / reference <= high for c in range(reference + 1)]
            for low, high in (wilson_interval(k / n, n) for k in range(n + 1))
        ]
        chances.append(float(p_label @ np.array(inside) @ p_reference))
        naive.append(float(p_label @ np.array(taken) @ p_reference))
    assert 0.945 < np.mean(chances) < 0.965
    if reference == 16:
        assert np.mean(naive) < 0.92
