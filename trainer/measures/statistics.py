"""Intervals and tests for accuracies and paired differences.

Problems that share a group (Countdown: a multiset of numbers) are not independent. Intervals
therefore treat groups as clusters (Liang and Zeger 1986): the independent quantity is the sum over
a group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.labellers.evidence import Z, wilson_interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, from n problems."""

    value: float
    low: float
    high: float
    n: int


def variance_of_mean(
    values: Sequence[float] | np.ndarray, groups: Sequence[str] | None = None
) -> float:
    """The estimated variance of the mean with G groups as clusters: G / (G - 1) x the sum over
    groups of (sum of residuals)^2, divided by n^2. Without groups each value is a group. 0 for a
    single group."""
    value = np.asarray(values, dtype=float)
    _, cluster = np.unique(range(len(value)) if groups is None else groups, return_inverse=True)
    sums = np.bincount(cluster, weights=value - value.mean())
    if len(sums) < 2:
        return 0.0
    return float((sums**2).sum()) * len(sums) / (len(sums) - 1) / len(value) ** 2


def accuracy(correct: Sequence[bool], groups: Sequence[str] | None = None) -> Estimate:
    """The share of correct problems with Wilson's 95 % score interval. If clustering makes the
    variance larger than that of n independent problems, the interval is that of the smaller number
    of independent problems that has this variance. If the clusters show no variance, because all
    problems have one outcome or there is one cluster, it is that of as many independent problems as
    there are clusters. Raises ValueError if there are no problems."""
    if not correct:
        raise ValueError("an accuracy needs at least one problem")
    n, p = len(correct), sum(correct) / len(correct)
    values = [float(c) for c in correct]
    alone = variance_of_mean(values)
    clusters = n if groups is None else len(set(groups))
    shows_variance = alone > 0 and clusters > 1
    ratio = variance_of_mean(values, groups) / alone if shows_variance else n / clusters
    effective = n / max(1.0, ratio)
    low, high = wilson_interval(p, effective)
    return Estimate(value=p, low=low, high=high, n=n)


def share_estimate(shares: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """The mean of shares, each in [0, 1], with Wilson's interval. The interval is that of the
    number of independent outcomes that has the clustered variance; if this variance is 0, that of
    the number of clusters."""
    p, variance = math.fsum(shares) / len(shares), variance_of_mean(shares, groups)
    clusters = len(shares) if groups is None else len(np.unique(groups))
    effective = p * (1 - p) / variance if variance > 0 else float(clusters)
    low, high = wilson_interval(p, effective)
    return Estimate(value=p, low=low, high=high, n=len(shares))


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], groups: Sequence[str] | None = None
) -> Estimate:
    """The accuracy of `first` minus that of `second` on the same problems, in the same order: the
    mean of the paired differences with the normal 95 % interval and groups as clusters.

    Where the clusters show no variance, as when all problems have the same outcome in both, the
    interval ends where Wilson's interval of 0 differing clusters of G ends: z^2 / (G + z^2) from
    the mean. One cluster shows nothing at all: [-1, 1]. Raises ValueError if the lengths differ."""
    if len(first) != len(second) or not first:
        raise ValueError(f"paired samples need equal lengths, got {len(first)} and {len(second)}")
    difference = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    estimate = mean_estimate(difference, groups)
    clusters = len(first) if groups is None else len(set(groups))
    if clusters == 1:
        return replace(estimate, low=-1.0, high=1.0)
    if estimate.low == estimate.high:
        half, mean = Z**2 / (clusters + Z**2), estimate.value
        return replace(estimate, low=max(-1.0, mean - half), high=min(1.0, mean + half))
    return estimate


def mean_estimate(values: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """The mean with the normal 95 % interval and groups as clusters."""
    mean = math.fsum(values) / len(values)
    half = Z * math.sqrt(variance_of_mean(values, groups))
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(values))


def weighted_mean_estimate(
    values: Sequence[float], weights: Sequence[float], groups: Sequence[str] | None = None
) -> Estimate:
    """The weighted mean with the normal 95 % interval of a ratio of sums (linearised) and groups as
    clusters."""
    value, weight = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    mean = float((weight * value).sum() / weight.sum())
    half = Z * math.sqrt(variance_of_mean(weight * (value - mean) / weight.mean(), groups))
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(values))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the given order. An adjusted p-value below alpha is
    significant at the level alpha for all tests together."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def paired_p_value(
    candidate: Sequence[bool], incumbent: Sequence[bool], groups: Sequence[str] | None = None
) -> tuple[float, int, int]:
    """Exact one-sided test of candidate > incumbent: (p, wins, losses). p is 1 if both have the
    same outcome on every problem.

    If both were equally good, the wins minus losses of each group would be equally likely with the
    other sign. p is the share of all sign flips whose total is at least the observed total. If
    every problem is a separate group, as without groups, this is McNemar's exact test.
    """
    pairs = list(zip(candidate, incumbent, strict=True))
    margins: Counter[str] = Counter()
    for key, (c, i) in zip(groups or map(str, range(len(pairs))), pairs, strict=True):
        margins[key] += int(c) - int(i)
    wins = sum(c and not i for c, i in pairs)
    losses = sum(i and not c for c, i in pairs)
    totals = np.ones(1)  # the distribution of the total over all flips, in steps of 1
    for size in map(abs, margins.values()):
        if size:
            flip = np.zeros(2 * size + 1)
            flip[[0, -1]] = 0.5
            totals = np.convolve(totals, flip)
    seen = wins - losses + len(totals) // 2
    return min(1.0, float(totals[seen:].sum())), wins, losses
