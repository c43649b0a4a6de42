"""Intervals and tests: accuracy, paired differences.

Problems that share a group (Countdown: a multiset of numbers) are not independent, so intervals
take groups as clusters (Liang and Zeger 1986): what varies is a group's sum, not a problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Z = 1.959964  # of a two-sided 95 % interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, from n problems."""

    value: float
    low: float
    high: float
    n: int


def variance_of_mean(values: Sequence[float], groups: Sequence[str] | None = None) -> float:
    """Estimated variance of the mean, groups as clusters: G / (G - 1) x the sum over groups of
    (sum of residuals)^2, over n^2. Without groups each value is one. 0 for a single group."""
    value = np.asarray(values, dtype=float)
    _, cluster = np.unique(range(len(value)) if groups is None else groups, return_inverse=True)
    sums = np.bincount(cluster, weights=value - value.mean())
    if len(sums) < 2:
        return 0.0
    return float((sums**2).sum()) * len(sums) / (len(sums) - 1) / len(value) ** 2


def accuracy(correct: Sequence[bool], groups: Sequence[str] | None = None) -> Estimate:
    """Share of correct ones with Wilson's 95 % score interval. Where clustering makes the variance
    larger than that of n independent problems, the interval is that of the smaller number of
    independent problems with this variance. Raises ValueError when empty."""
    if not correct:
        raise ValueError("accuracy of no problems")
    n, p = len(correct), sum(correct) / len(correct)
    values = [float(c) for c in correct]
    alone = variance_of_mean(values)
    effective = n / max(1.0, variance_of_mean(values, groups) / alone) if alone else float(n)
    low, high = _wilson(p, effective)
    return Estimate(value=p, low=low, high=high, n=n)


def share_estimate(shares: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """The mean of shares, each in [0, 1], with Wilson's interval for as many independent outcomes
    as would have its clustered variance; for as many as there are clusters where that is 0."""
    p, variance = math.fsum(shares) / len(shares), variance_of_mean(shares, groups)
    clusters = len(shares) if groups is None else len(np.unique(groups))
    effective = p * (1 - p) / variance if variance > 0 else float(clusters)
    low, high = _wilson(p, effective)
    return Estimate(value=p, low=low, high=high, n=len(shares))


def _wilson(p: float, n: float) -> tuple[float, float]:
    z2 = Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], groups: Sequence[str] | None = None
) -> Estimate:
    """Accuracy of `first` minus `second` on the same problems, in order: mean of the paired
    differences with the normal 95 % interval, groups as clusters. Raises ValueError when lengths
    differ."""
    if len(first) != len(second) or not first:
        raise ValueError(f"paired samples need equal lengths, got {len(first)} and {len(second)}")
    difference = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    return mean_estimate(difference, groups)


def mean_estimate(values: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """The mean with the normal 95 % interval, groups as clusters."""
    mean = math.fsum(values) / len(values)
    half = Z * math.sqrt(variance_of_mean(values, groups))
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(values))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the order given: a p-value below alpha after it is
    significant at alpha over all of them together."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def paired_p_value(candidate: Sequence[bool], incumbent: Sequence[bool]) -> tuple[float, int, int]:
    """Exact one-sided McNemar test of candidate > incumbent: (p, wins, losses). p is 1 when no
    problem tells them apart."""
    pairs = list(zip(candidate, incumbent, strict=True))
    wins = sum(c and not i for c, i in pairs)
    losses = sum(i and not c for c, i in pairs)
    if wins + losses == 0:
        return 1.0, 0, 0
    test = stats.binomtest(wins, wins + losses, 0.5, alternative="greater")
    return float(test.pvalue), wins, losses
