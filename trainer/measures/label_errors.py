"""What an audit says of labels: bias, variance and coverage against many fresh rollouts.

Of each prefix: a label from n rollouts and its success K / R in R fresh ones, the reference. The
reference errs too, independently of the label and by a variance that K tells without bias,
V(1-V) / R from K(R-K) / (R(R-1)) / R. So the mean difference estimates the labels' mean error, its
interval from the spread of differences contains both errors, and squared errors are corrected by
taking the reference's variance off. docs/labels.md derives each number.
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
    """A labelled non-terminal prefix, `depth` steps deep and part of `rows` rows, beside its
    reference: `correct` of `rollouts` fresh rollouts."""

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
        """V(1 - V), estimated without bias from the reference."""
        wrong = self.rollouts - self.correct
        return self.correct * wrong / (self.rollouts * (self.rollouts - 1))


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """Labels of one group of prefixes. `mean_error` with its 95 % interval, problems as clusters.
    `variance` of the labels' errors, `rmse` their root mean square, the reference's part taken off
    both; `expected_*` is what the labels' counts and V(1-V) give, `claimed_rmse` what the labels'
    standard errors say. `coverage` of the labels' 95 % intervals, the reference's error accounted
    for (`search.labellers.evidence.within_prediction`), `coverage_naive` with the reference taken
    for the truth, `expected_coverage` what correct labels of these counts would have."""

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
    """All together, by rollout count, by depth."""
    rows = [_row("all", prefixes)]
    rows += _rows_by(prefixes, _count_group)
    rows += _rows_by(prefixes, _depth_group)
    return rows


def mean_error_by_rows(prefixes: Sequence[AuditedPrefix]) -> Estimate:
    """Mean error over rows' steps rather than over distinct prefixes: a prefix counts as often as
    it is trained on."""
    return weighted_mean_estimate(
        [p.error for p in prefixes], [p.rows for p in prefixes], [p.problem_id for p in prefixes]
    )


@dataclass(frozen=True, kw_only=True)
class UndecidedCoverage:
    """Coverage among prefixes whose reference is neither 0 nor 1, and what correct labels would
    have there. Only that: who is among them is settled by the reference, whose errors, and so the
    mean difference from it, are then not 0 on average."""

    prefixes: int
    coverage: float
    expected: float


def undecided_coverage(prefixes: Sequence[AuditedPrefix]) -> UndecidedCoverage:
    """Both 0 where there is no such prefix."""
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
    """P(the 95 % interval of a label from `count` rollouts contains `rate`), rollouts being correct
    with that probability."""
    shares = np.arange(count + 1) / count
    inside = [low <= rate <= high for low, high in (wilson_interval(s, count) for s in shares)]
    return float(stats.binom.pmf(np.arange(count + 1), count, rate)[inside].sum())
