"""The measures of a label audit: bias, variance and coverage against many fresh rollouts.

Each prefix has a label from n rollouts, and a reference: the success share K / R of R fresh
rollouts. The reference also has an error, which is independent of the label. K estimates the
variance of this error without bias: V(1-V) / R from K(R-K) / (R(R-1)) / R. So the mean difference
estimates the labels' mean error, and its interval, which comes from the spread of the differences,
contains both errors. Squared errors are corrected by subtracting the variance of the reference.
docs/labels.md derives each number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from search.labellers.evidence import wilson_interval, within_prediction
from trainer.measures.statistics import Estimate, accuracy, mean_estimate, weighted_mean_estimate

COUNTS = (1, 2, 4, 8, 16, 32, 64)  # upper ends of the groups by rollout count
DEEPEST = 12  # depths from here on are one group


@dataclass(frozen=True, kw_only=True)
class AuditedPrefix:
    """A labelled non-terminal prefix of `depth` steps that is part of `rows` rows. Its reference is
    `correct` of `rollouts` fresh rollouts."""

    problem_id: str
    text: str
    depth: int
    rows: int
    label: float
    count: int
    standard_error: float
    correct: int
    rollouts: int

    @property
    def error(self) -> float:
        return self.label - self.correct / self.rollouts

    @property
    def spread(self) -> float:
        """An unbiased estimate of V(1 - V) from the reference."""
        wrong = self.rollouts - self.correct
        return self.correct * wrong / (self.rollouts * (self.rollouts - 1))


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """The measures of one group of prefixes. `mean_error` has a 95 % interval with problems as
    clusters. `variance` and `rmse` (root mean square) describe the labels' errors; the variance of
    the reference is subtracted from both. `expected_*` follows from the labels' counts and V(1-V).
    `claimed_rmse` follows from the labels' standard errors. `coverage` is that of the labels' 95 %
    intervals and accounts for the reference's error
    (`search.labellers.evidence.within_prediction`). `coverage_naive` treats the reference as the
    truth. `expected_coverage` is the coverage of correct labels with these counts."""

    group: str
    prefixes: int
    problems: int
    mean_error: float
    mean_error_low: float
    mean_error_high: float
    variance: float
    expected_variance: float
    rmse: float
    expected_rmse: float
    claimed_rmse: float
    coverage: float
    coverage_low: float
    coverage_high: float
    coverage_naive: float
    expected_coverage: float


def audit_rows(prefixes: Sequence[AuditedPrefix]) -> list[AuditRow]:
    """Rows for all prefixes, for groups by rollout count, and for groups by depth."""
    rows = [_row("all", prefixes)]
    rows += _rows_by(prefixes, _count_group)
    rows += _rows_by(prefixes, _depth_group)
    return rows


def mean_error_by_rows(prefixes: Sequence[AuditedPrefix]) -> Estimate:
    """Mean error over the steps of rows instead of distinct prefixes. A prefix counts as often as a
    training uses it."""
    return weighted_mean_estimate(
        [p.error for p in prefixes], [p.rows for p in prefixes], [p.problem_id for p in prefixes]
    )


@dataclass(frozen=True, kw_only=True)
class UndecidedCoverage:
    """The coverage on prefixes whose reference is neither 0 nor 1, and the coverage that correct
    labels would have there. Other measures would be biased: the reference selects these prefixes,
    so its error, and the mean difference from it, are not 0 on average."""

    prefixes: int
    coverage: float
    expected: float


def undecided_coverage(prefixes: Sequence[AuditedPrefix]) -> UndecidedCoverage:
    """The coverage of undecided prefixes. Both values are 0 if there is no such prefix."""
    inner = [p for p in prefixes if 0 < p.correct < p.rollouts]
    inside = [within_prediction(p.label, p.count, p.correct, p.rollouts) for p in inner]
    expected = [nominal_coverage(p.count, p.correct / p.rollouts) for p in inner]
    return UndecidedCoverage(
        prefixes=len(inner),
        coverage=sum(inside) / max(1, len(inner)),
        expected=math.fsum(expected) / max(1, len(inner)),
    )


def reference_error(prefixes: Sequence[AuditedPrefix]) -> float:
    """Root mean square error of the references."""
    return math.sqrt(float(np.mean([p.spread / p.rollouts for p in prefixes])))


def _rows_by(
    prefixes: Sequence[AuditedPrefix], key: Callable[[AuditedPrefix], tuple[int, str]]
) -> list[AuditRow]:
    groups: dict[tuple[int, str], list[AuditedPrefix]] = {}
    for prefix in prefixes:
        groups.setdefault(key(prefix), []).append(prefix)
    return [_row(name, groups[order, name]) for order, name in sorted(groups)]


def _count_group(prefix: AuditedPrefix) -> tuple[int, str]:
    low = 1
    for high in COUNTS:
        if prefix.count <= high:
            return high, f"count {low}" if low == high else f"count {low} to {high}"
        low = high + 1
    return COUNTS[-1] + 1, f"count {low} and more"


def _depth_group(prefix: AuditedPrefix) -> tuple[int, str]:
    if prefix.depth >= DEEPEST:
        return DEEPEST, f"depth {DEEPEST} and more"
    return prefix.depth, f"depth {prefix.depth}"


def _row(group: str, prefixes: Sequence[AuditedPrefix]) -> AuditRow:
    problems = [p.problem_id for p in prefixes]
    errors = np.array([p.error for p in prefixes])
    reference = float(np.mean([p.spread / p.rollouts for p in prefixes]))
    expected = float(np.mean([p.spread / p.count for p in prefixes]))
    bias = mean_estimate(errors.tolist(), problems)
    spread = float(errors.var(ddof=1)) if len(errors) > 1 else 0.0
    covered = [within_prediction(p.label, p.count, p.correct, p.rollouts) for p in prefixes]
    coverage = accuracy(covered, problems)
    return AuditRow(
        group=group,
        prefixes=len(prefixes),
        problems=len(set(problems)),
        mean_error=bias.value,
        mean_error_low=bias.low,
        mean_error_high=bias.high,
        variance=spread - reference,
        expected_variance=expected,
        rmse=math.sqrt(max(0.0, float((errors**2).mean()) - reference)),
        expected_rmse=math.sqrt(expected),
        claimed_rmse=math.sqrt(float(np.mean([p.standard_error**2 for p in prefixes]))),
        coverage=coverage.value,
        coverage_low=coverage.low,
        coverage_high=coverage.high,
        coverage_naive=float(np.mean([_covers(p) for p in prefixes])),
        expected_coverage=float(
            np.mean([nominal_coverage(p.count, p.correct / p.rollouts) for p in prefixes])
        ),
    )


def _covers(prefix: AuditedPrefix) -> bool:
    low, high = wilson_interval(prefix.label, prefix.count)
    return low <= prefix.correct / prefix.rollouts <= high


@cache
def nominal_coverage(count: int, rate: float) -> float:
    """P(the 95 % interval of a label from `count` rollouts contains `rate`), if each rollout is
    correct with probability `rate`."""
    shares = np.arange(count + 1) / count
    inside = [low <= rate <= high for low, high in (wilson_interval(s, count) for s in shares)]
    return float(stats.binom.pmf(np.arange(count + 1), count, rate)[inside].sum())
