"""ProcessBench's metric (Zheng et al. 2024, 2412.06559, section 3.1): does a reward model find the
first error of a solution, and does it accept correct solutions?

A reward model locates the first step whose score is below a threshold. If there is no such step, it
accepts the solution as correct. The score is the harmonic mean (F1) of two accuracies: the share of
erroneous solutions with the right step located, and the share of correct solutions accepted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.measures.score_quality import resamples
from trainer.measures.statistics import Estimate, accuracy

NO_ERROR = -1
MAX_THRESHOLDS = 1000


@dataclass(frozen=True, kw_only=True)
class JudgedSolution:
    """`label` is the true index of the first error, -1 for none; `scores` one per step."""

    group: str
    scores: tuple[float, ...]
    label: int


@dataclass(frozen=True, kw_only=True)
class FirstErrors:
    """`erroneous` and `correct` are the accuracies on solutions of that kind; None if there are
    none."""

    threshold: float
    erroneous: Estimate | None
    correct: Estimate | None
    f1: Estimate | None


def locate(solutions: Sequence[JudgedSolution], threshold: float) -> Any:
    """An array with the index of each solution's first score below the threshold; -1 for none."""
    return _first_below(_score_table(solutions), threshold)


def _score_table(solutions: Sequence[JudgedSolution]) -> Any:
    """An array of solutions x steps. Entries after a solution's end are above every threshold."""
    table = np.full((len(solutions), max(len(s.scores) for s in solutions)), np.inf)
    for row, solution in zip(table, solutions, strict=True):
        row[: len(solution.scores)] = solution.scores
    return table


def _first_below(table: Any, threshold: float) -> Any:
    below = table < threshold
    return np.where(below.any(axis=1), below.argmax(axis=1), NO_ERROR)


def harmonic_mean(first: float, second: float) -> float:
    """The harmonic mean; NaN if one value is NaN, and 0 if both are 0."""
    return 2 * first * second / (first + second) if first + second else 0.0


def choose_threshold(solutions: Sequence[JudgedSolution]) -> float:
    """The threshold with the highest F1 (the lowest one, if several are equal). The candidates are
    the scores, or 1,000 quantiles if there are more, and one value above all scores. Raises
    ValueError unless there are erroneous and correct solutions."""
    labels = np.array([s.label for s in solutions])
    wrong = labels != NO_ERROR
    if not wrong.any() or wrong.all():
        raise ValueError(
            f"a threshold needs erroneous and correct solutions; of {len(labels)} validation "
            f"solutions {int(wrong.sum())} are erroneous"
        )
    table = _score_table(solutions)
    candidates = np.unique(table[np.isfinite(table)])
    if len(candidates) > MAX_THRESHOLDS:
        candidates = np.quantile(candidates, np.linspace(0, 1, MAX_THRESHOLDS), method="lower")
    best, best_f1 = 0.0, -1.0
    for threshold in [*candidates, math.nextafter(candidates[-1], math.inf)]:
        hit = _first_below(table, threshold) == labels
        f1 = harmonic_mean(hit[wrong].mean(), hit[~wrong].mean())
        if f1 > best_f1:
            best, best_f1 = float(threshold), f1
    return best


def measure_first_errors(
    solutions: Sequence[JudgedSolution], threshold: float, seed: int
) -> FirstErrors:
    """Accuracies with Wilson's intervals, and F1 with a bootstrap interval; groups are clusters."""
    if not solutions:
        return FirstErrors(threshold=threshold, erroneous=None, correct=None, f1=None)
    labels = np.array([s.label for s in solutions])
    wrong = labels != NO_ERROR
    hit = locate(solutions, threshold) == labels

    def share(kind: Any) -> Estimate | None:
        chosen = np.flatnonzero(kind).tolist()
        found = [bool(hit[i]) for i in chosen]
        return accuracy(found, [solutions[i].group for i in chosen]) if found else None

    erroneous, correct = share(wrong), share(~wrong)
    f1: Estimate | None = None
    if erroneous and correct:
        groups = [s.group for s in solutions]
        samples = [
            harmonic_mean(hit[i][wrong[i]].mean(), hit[i][~wrong[i]].mean())
            for i, _ in resamples(groups, seed)
            if 0 < wrong[i].sum() < len(i)
        ]
        # One cluster does not show how clusters differ.
        low, high = np.quantile(samples, [0.025, 0.975]) if len(set(groups)) > 1 else (0.0, 1.0)
        f1 = Estimate(
            value=harmonic_mean(erroneous.value, correct.value),
            low=float(low),
            high=float(high),
            n=len(solutions),
        )
    return FirstErrors(threshold=threshold, erroneous=erroneous, correct=correct, f1=f1)
