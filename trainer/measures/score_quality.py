"""How good a reward model's scores of prefixes are, against success rates that are themselves
estimated: discrimination, Brier skill and calibration.

A prefix's success rate p is known as a share r = k / n of n rollouts. Squared distances to r are
too large by p(1-p)/n, whose unbiased estimate is r(1-r)/(n-1); absolute distances of bin means are
too large because noise never cancels within a bin. Both are accounted for. Intervals are 95 %, from
resampling whole clusters: problems of one group (Countdown: a multiset of numbers) are not
independent, nor are the prefixes of a problem.
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
    """`correct` of `count` rollouts from here were correct; `group` is its problem's cluster."""

    problem: str
    group: str
    score: float
    correct: int
    count: int


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Means over a bin's prefixes; `low` and `high` are those of `observed`."""

    predicted: float
    observed: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`brier_skill` is 1 - MSE / MSE of the base rate, both against the success rates p: 0 is no
    better than the base rate, 1 perfect. None where all p are equal or some prefix has one rollout
    only. `brier_skill_outcomes` is the same against single outcomes, whose own chance is in both
    errors: nearer to 0. `calibration_error` is the expected calibration error over equal-mass bins,
    `calibration_error_raw` the same before its bias is taken off."""

    brier_skill: Estimate | None
    brier_skill_outcomes: Estimate | None
    calibration_error: Estimate
    calibration_error_raw: float
    bins: tuple[ReliabilityBin, ...]


def calibration(prefixes: Sequence[ScoredPrefix], seed: int, bins: int = 10) -> Calibration:
    """Raises ValueError for no prefixes."""
    if not prefixes:
        raise ValueError("calibration of no prefixes")
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
    """Bootstrap over clusters: the indices of a resample, and the cluster of each; a cluster drawn
    twice counts as two."""
    _, cluster = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(cluster == c) for c in range(cluster.max() + 1)]
    generator = np.random.default_rng(seed)
    for draw in generator.integers(0, len(members), size=(RESAMPLES, len(members))):
        chosen = [members[c] for c in draw]
        yield np.concatenate(chosen), np.repeat(np.arange(len(draw)), [len(c) for c in chosen])


def _percentile_estimate(value: float, drawn: Sequence[float] | Array, n: int) -> Estimate | None:
    """A value with the percentile interval of its resamples; NaN, where it is not defined, gives
    None, and is left out of the resamples."""
    if math.isnan(value):
        return None
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def brier_skill(scores: Array, rates: Array, noise: Array) -> float:
    """1 - E(score - p)^2 / E(mean p - p)^2, from shares and the variance of each (`noise`). The
    base rate is estimated from the same n prefixes, so its error holds (1 - 1/n) of the noise. NaN
    where the success rates do not differ beyond their noise."""
    base = ((rates - rates.mean()) ** 2).mean() - (1 - 1 / len(rates)) * noise.mean()
    if not base > 1e-12:
        return math.nan
    return float(1 - (((scores - rates) ** 2).mean() - noise.mean()) / base)


def brier_skill_outcomes(scores: Array, rates: Array) -> float:
    """1 - E(score - y)^2 / b(1 - b), y a rollout's outcome (0 or 1) and b the base rate (Brier
    1950); prefixes weigh the same. Over a prefix's rollouts (s - y)^2 averages (s - r)^2 + r(1-r).
    """
    base = rates.mean() * (1 - rates.mean())
    if base <= 1e-12:
        return math.nan
    return float(1 - ((scores - rates) ** 2 + rates * (1 - rates)).mean() / base)


def equal_mass_bins(scores: Array, bins: int) -> Array:
    """The bin of each score, edges at the scores' quantiles; equal scores share a bin, so there may
    be fewer bins, not numbered without gaps."""
    ranked = np.sort(scores)
    edges = ranked[[len(scores) * b // bins for b in range(1, bins)]]
    return np.searchsorted(edges, scores, side="right")


def bin_gaps(scores: Array, rates: Array, clusters: Array, bins: int) -> tuple[Array, Array, Array]:
    """Of each bin: its share of the prefixes, mean score minus mean rate, and that one's standard
    error by clusters (integers from 0), 0 in a bin of a single cluster; an empty bin has zeros."""
    index, size = equal_mass_bins(scores, bins), int(clusters.max()) + 1
    gaps = scores - rates
    counts = np.bincount(index, minlength=bins)
    means = np.bincount(index, weights=gaps, minlength=bins) / np.maximum(counts, 1)
    cell = index * size + clusters
    shape = (bins, size)
    sums = np.bincount(cell, weights=gaps - means[index], minlength=bins * size).reshape(shape)
    present = (np.bincount(cell, minlength=bins * size).reshape(shape) > 0).sum(axis=1)
    # As `trainer.measures.statistics.variance_of_mean` in every bin.
    factor = np.where(present > 1, present / np.maximum(present - 1, 1), 0.0)
    errors = np.sqrt((sums**2).sum(axis=1) * factor) / np.maximum(counts, 1)
    return counts / len(scores), means, errors


def calibration_errors(scores: Array, rates: Array, clusters: Array, bins: int) -> Array:
    """The expected calibration error, the sum over bins of weight x |d|, d = mean score - mean
    rate, and the same less each bin's bias; below 0 by chance.

    d is measured with a standard error s, which makes |d| too large; by how much is estimated as
    E|d + s noise| - |d| (Kumar et al. 2019, 1909.10155, and their code; in closed form here). That
    is nearly all of it where gaps are well above the noise, and two fifths where there is no gap at
    all: what is left errs on the side of a larger error."""
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
    """The corrected error, and the raw one; `drawn` are the corrected errors of the resamples.

    The interval is the basic bootstrap's (Davison and Hinkley 1997, section 5.2): in a resample the
    truth is the raw error of the sample it is drawn from, so the distances to that are turned
    round. It begins at 0 where the gaps are together no larger than chance makes them (chi-square).
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
    """P(the prefix with the higher success rate is scored higher), over pairs within one problem
    whose success rates differ; ties in score count half. `problems` holds (score, success rate) of
    each one's prefixes, `groups` its cluster. Returns the estimate, None where no pair differs, and
    the number of pairs."""
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
