"""The quality of a reward model's scores of prefixes, measured against estimated success rates:
discrimination, Brier skill and calibration.

The success rate p of a prefix is estimated by the share r = k / n of n rollouts. Squared distances
to r are too large by p(1-p)/n, whose unbiased estimate is r(1-r)/(n-1). Absolute distances of bin
means are too large because noise never cancels within a bin. Both effects are corrected. Intervals
are 95 % and come from resampling whole clusters: problems of one group (Countdown: a multiset of
numbers) are not independent, and the prefixes of a problem are not independent either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from trainer.measures.statistics import Estimate, share_estimate

RESAMPLES = 1000
Array = Any  # of float64


@dataclass(frozen=True, kw_only=True)
class ScoredPrefix:
    """A prefix with its score. `correct` of `count` rollouts from it were correct. `group` is the
    cluster of its problem."""

    problem: str
    group: str
    score: float
    correct: int
    count: int


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Means over the prefixes of a bin. `low` and `high` are the interval of `observed`."""

    predicted: float
    observed: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`brier_skill` is 1 - MSE / MSE of the base rate, both against the success rates p. 0 means no
    better than the base rate, and 1 means perfect. It is None if all p are equal or a prefix has
    only one rollout. `brier_skill_outcomes` is the same against single outcomes; their randomness
    is in both errors, so it is nearer to 0. `calibration_error` is the expected calibration error
    over equal-mass bins. `calibration_error_raw` is the same before the correction of its bias."""

    brier_skill: Estimate | None
    brier_skill_outcomes: Estimate | None
    calibration_error: Estimate
    calibration_error_raw: float
    bins: tuple[ReliabilityBin, ...]


def calibration(prefixes: Sequence[ScoredPrefix], seed: int, bins: int = 10) -> Calibration:
    """The calibration on the prefixes. Raises ValueError if there are none."""
    if not prefixes:
        raise ValueError("a calibration needs at least one prefix")
    scores = np.array([p.score for p in prefixes])
    counts = np.array([p.count for p in prefixes])
    rates = np.array([p.correct for p in prefixes]) / counts
    noise = rates * (1 - rates) / np.where(counts > 1, counts - 1, np.nan)
    groups = [p.group for p in prefixes]
    _, own = np.unique(groups, return_inverse=True)

    def measures(indices: Array, clusters: Array) -> list[float]:
        s, r = scores[indices], rates[indices]
        corrected = calibration_errors(s, r, clusters, bins)[1]
        return [brier_skill(s, r, noise[indices]), brier_skill_outcomes(s, r), float(corrected)]

    skill, skill_outcomes, _ = measures(np.arange(len(prefixes)), own)
    drawn = np.array([measures(*resample) for resample in resamples(groups, seed)])
    error, raw = _error_estimate(scores, rates, own, bins, drawn[:, 2])
    return Calibration(
        brier_skill=_percentile_estimate(skill, drawn[:, 0], len(prefixes)),
        brier_skill_outcomes=_percentile_estimate(skill_outcomes, drawn[:, 1], len(prefixes)),
        calibration_error=error,
        calibration_error_raw=raw,
        bins=reliability(scores, rates, groups, bins),
    )


def resamples(groups: Sequence[str], seed: int) -> Iterator[tuple[Array, Array]]:
    """Bootstrap over clusters. Yields the indices of a resample, and the cluster of each index. A
    cluster that is drawn twice counts as two clusters."""
    _, cluster = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(cluster == c) for c in range(cluster.max() + 1)]
    generator = np.random.default_rng(seed)
    for draw in generator.integers(0, len(members), size=(RESAMPLES, len(members))):
        chosen = [members[c] for c in draw]
        yield np.concatenate(chosen), np.repeat(np.arange(len(draw)), [len(c) for c in chosen])


def _percentile_estimate(value: float, drawn: Sequence[float] | Array, n: int) -> Estimate | None:
    """A value with the percentile interval of its resamples. An undefined value (NaN) gives None,
    and undefined resamples are left out."""
    if math.isnan(value):
        return None
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def brier_skill(scores: Array, rates: Array, noise: Array) -> float:
    """1 - E(score - p)^2 / E(mean p - p)^2, from shares and the variance of each share (`noise`).
    The base rate is estimated from the same n prefixes, so its error contains (1 - 1/n) of the
    noise. NaN if the success rates do not differ by more than their noise."""
    base = ((rates - rates.mean()) ** 2).mean() - (1 - 1 / len(rates)) * noise.mean()
    if not base > 1e-12:
        return math.nan
    return float(1 - (((scores - rates) ** 2).mean() - noise.mean()) / base)


def brier_skill_outcomes(scores: Array, rates: Array) -> float:
    """1 - E(score - y)^2 / b(1 - b) (Brier 1950). y is a rollout's outcome (0 or 1) and b is the
    base rate. All prefixes have the same weight. The mean of (s - y)^2 over a prefix's rollouts is
    (s - r)^2 + r(1-r)."""
    base = rates.mean() * (1 - rates.mean())
    if base <= 1e-12:
        return math.nan
    return float(1 - ((scores - rates) ** 2 + rates * (1 - rates)).mean() / base)


def equal_mass_bins(scores: Array, bins: int) -> Array:
    """The bin of each score. The edges are quantiles of the scores. Equal scores are in one bin, so
    there may be fewer bins, and their numbers may have gaps."""
    ranked = np.sort(scores)
    edges = ranked[[len(scores) * b // bins for b in range(1, bins)]]
    return np.searchsorted(edges, scores, side="right")


def bin_gaps(scores: Array, rates: Array, clusters: Array, bins: int) -> tuple[Array, Array, Array]:
    """For each bin: its share of the prefixes; its gap, the mean score minus the mean rate; and the
    standard error of the gap by clusters (integers from 0), which is 0 for a single cluster. An
    empty bin has zeros."""
    index, size = equal_mass_bins(scores, bins), int(clusters.max()) + 1
    gaps = scores - rates
    counts = np.bincount(index, minlength=bins)
    means = np.bincount(index, weights=gaps, minlength=bins) / np.maximum(counts, 1)
    cell = index * size + clusters
    shape = (bins, size)
    sums = np.bincount(cell, weights=gaps - means[index], minlength=bins * size).reshape(shape)
    present = (np.bincount(cell, minlength=bins * size).reshape(shape) > 0).sum(axis=1)
    # Every bin uses the formula of `trainer.measures.statistics.variance_of_mean`.
    factor = np.where(present > 1, present / np.maximum(present - 1, 1), 0.0)
    errors = np.sqrt((sums**2).sum(axis=1) * factor) / np.maximum(counts, 1)
    return counts / len(scores), means, errors


def calibration_errors(scores: Array, rates: Array, clusters: Array, bins: int) -> Array:
    """The expected calibration error, which is the sum over bins of weight x |d| with d = mean
    score - mean rate; and the same minus the bias of each bin, which can be below 0 by chance.

    d has a standard error s, which makes |d| too large on average. The bias is estimated as E|d + s
    noise| - |d| (Kumar et al. 2019, 1909.10155, and their code; here in closed form). The estimate
    is nearly the whole bias if gaps are well above the noise, and two fifths of it if there is no
    gap at all. The corrected error is therefore rather too large than too small."""
    weights, gaps, errors = bin_gaps(scores, rates, clusters, bins)
    distances = np.abs(gaps)
    corrected = 2 * distances - folded_normal_mean(distances, errors)
    return np.array([(weights * distances).sum(), (weights * corrected).sum()])


def folded_normal_mean(mean: Array, deviation: Array) -> Array:
    """E|X|, X normal: s sqrt(2/pi) exp(-m^2 / 2s^2) + m (1 - 2 Phi(-m/s)); |m| where s is 0."""
    z = np.asarray(mean) / np.where(np.asarray(deviation) > 0, deviation, 1.0)
    peak = deviation * math.sqrt(2 / math.pi) * np.exp(-z * z / 2)
    folded = peak + mean * (1 - 2 * special.ndtr(-z))
    return np.where(np.asarray(deviation) > 0, folded, np.abs(mean))


def _error_estimate(
    scores: Array, rates: Array, clusters: Array, bins: int, drawn: Array
) -> tuple[Estimate, float]:
    """The corrected error with its interval, and the raw error. `drawn` holds the corrected errors
    of the resamples.

    The interval is that of the basic bootstrap (Davison and Hinkley 1997, section 5.2). For a
    resample, the true value is the raw error of the original sample, so the distances from that
    value are reflected. The interval begins at 0 if chance explains all gaps together (chi-square).
    """
    raw, value = (float(e) for e in calibration_errors(scores, rates, clusters, bins))
    below, above = np.quantile(drawn - raw, [0.025, 0.975])
    _, gaps, errors = bin_gaps(scores, rates, clusters, bins)
    known = errors > 0
    chance = stats.chi2.sf(((gaps[known] / errors[known]) ** 2).sum(), max(1, known.sum()))
    low = 0.0 if chance > 0.025 else value - max(0.0, float(above))
    estimate = Estimate(
        value=max(0.0, value),
        low=max(0.0, low),
        high=max(0.0, value - min(0.0, float(below))),
        n=len(scores),
    )
    return estimate, raw


def reliability(
    scores: Array, rates: Array, groups: Sequence[str], bins: int
) -> tuple[ReliabilityBin, ...]:
    index = equal_mass_bins(scores, bins)
    clusters: Any = np.asarray(groups)
    rows: list[ReliabilityBin] = []
    for b in np.unique(index):
        inside = index == b
        observed = share_estimate(rates[inside], clusters[inside])
        rows.append(
            ReliabilityBin(
                predicted=float(scores[inside].mean()),
                observed=observed.value,
                low=observed.low,
                high=observed.high,
                count=int(inside.sum()),
            )
        )
    return tuple(rows)


def within_problem_auroc(
    problems: Sequence[Sequence[tuple[float, float]]], groups: Sequence[str], seed: int
) -> tuple[Estimate | None, int]:
    """P(the prefix with the higher success rate has the higher score), over pairs of one problem
    with different success rates. Equal scores count half. `problems` holds (score, success rate) of
    each problem's prefixes, and `groups` its cluster. Returns the estimate (None if no pair
    differs) and the number of pairs."""
    won = np.zeros(len(problems))
    pairs = np.zeros(len(problems))
    for row, prefixes in enumerate(problems):
        for i, (score_a, rate_a) in enumerate(prefixes):
            for score_b, rate_b in prefixes[i + 1 :]:
                if rate_a != rate_b:
                    pairs[row] += 1
                    same = score_a == score_b
                    won[row] += 0.5 if same else (score_a > score_b) == (rate_a > rate_b)
    if not pairs.any():
        return None, 0

    def share(indices: Array) -> float:
        total = pairs[indices].sum()
        return float(won[indices].sum() / total) if total else math.nan

    drawn = [share(indices) for indices, _ in resamples(groups, seed)]
    value = share(np.arange(len(problems)))
    return _percentile_estimate(value, drawn, len(problems)), int(pairs.sum())
