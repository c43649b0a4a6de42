"""Intervals and tests: accuracy, paired differences, AUROC within problems, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, from n problems."""

    value: float
    low: float
    high: float
    n: int


def accuracy(correct: Sequence[bool]) -> Estimate:
    """Share of correct ones with Wilson's 95 % score interval. Raises ValueError when empty."""
    if not correct:
        raise ValueError("accuracy of no problems")
    test = stats.binomtest(sum(correct), len(correct))
    interval = test.proportion_ci(confidence_level=0.95, method="wilson")
    return Estimate(
        value=sum(correct) / len(correct), low=interval.low, high=interval.high, n=len(correct)
    )


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Accuracy of `first` minus `second` on the same problems, in order: mean of the paired
    differences with the normal 95 % interval. Raises ValueError when lengths differ."""
    if len(first) != len(second) or not first:
        raise ValueError(f"paired samples need equal lengths, got {len(first)} and {len(second)}")
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    half = 1.959964 * float(difference.std(ddof=1)) / math.sqrt(len(difference))
    mean = float(difference.mean())
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(difference))


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


def within_problem_auroc(
    groups: Sequence[Sequence[tuple[float, float]]], seed: int
) -> tuple[Estimate | None, int]:
    """P(the prefix with the higher success rate is scored higher), over pairs within one problem
    whose success rates differ; ties in score count half. `groups` holds (score, success rate) per
    problem. 95 % interval by bootstrap over problems. Returns the estimate, None where no pair
    differs, and the number of pairs."""
    wins: list[float] = []
    pairs: list[int] = []
    for group in groups:
        won, total = 0.0, 0
        for i, (score_a, rate_a) in enumerate(group):
            for score_b, rate_b in group[i + 1 :]:
                if rate_a == rate_b:
                    continue
                total += 1
                if score_a == score_b:
                    won += 0.5
                else:
                    won += (score_a > score_b) == (rate_a > rate_b)
        wins.append(won)
        pairs.append(total)
    wins_array, pairs_array = np.array(wins), np.array(pairs)
    total = int(pairs_array.sum())
    if total == 0:
        return None, 0
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(groups), size=(1000, len(groups)))
    samples = wins_array[draws].sum(1) / np.maximum(1, pairs_array[draws].sum(1))
    low, high = np.quantile(samples, [0.025, 0.975])
    return (
        Estimate(
            value=float(wins_array.sum() / total), low=float(low), high=float(high), n=len(groups)
        ),
        total,
    )


def brier_skill(scores: Sequence[float], rates: Sequence[float]) -> float:
    """1 - MSE(score) / MSE(base rate), against success rates; 0 is no better than the base rate."""
    score, rate = np.asarray(scores), np.asarray(rates)
    base = float(((rate.mean() - rate) ** 2).mean())
    return 1.0 - float(((score - rate) ** 2).mean()) / base if base else 0.0


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    predicted: float
    observed: float
    count: int


def reliability(
    scores: Sequence[float], rates: Sequence[float], bins: int = 10
) -> tuple[float, list[ReliabilityBin]]:
    """Expected calibration error over equal-width bins (Guo et al. 2017) and the bins."""
    score, rate = np.asarray(scores), np.asarray(rates)
    index = np.minimum((score * bins).astype(int), bins - 1)
    rows = [
        ReliabilityBin(
            predicted=float(score[index == b].mean()),
            observed=float(rate[index == b].mean()),
            count=int((index == b).sum()),
        )
        for b in range(bins)
        if (index == b).any()
    ]
    error = sum(row.count * abs(row.predicted - row.observed) for row in rows) / len(scores)
    return float(error), rows
