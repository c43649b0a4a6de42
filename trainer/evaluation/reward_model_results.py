"""Computes the rows of prm.json from the samples of a reward model's evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewards.aggregate import AGGREGATES
from search.base import SearchResult
from trainer.evaluation.auroc_by_depth import auroc_metrics
from trainer.evaluation.policies import groups_of
from trainer.evaluation.reward_model_samples import LAST_WEIGHTED, candidates, ends_of_paths
from trainer.measures.best_of_n import (
    BestOfN,
    OverOptimisation,
    best_of_n,
    expected_best,
    expected_pass,
    powers_of_two,
)
from trainer.measures.first_errors import (
    NO_ERROR,
    FirstErrors,
    JudgedSolution,
    choose_threshold,
    measure_first_errors,
)
from trainer.measures.recalibration import recalibrations
from trainer.measures.results import (
    Aim,
    CalibrationRow,
    FirstErrorRow,
    PassAtN,
    RewardModelEvaluation,
)
from trainer.measures.score_quality import Calibration, ScoredPrefix, calibration
from trainer.measures.statistics import Estimate, share_estimate


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Solutions with first errors of one kind: `fitting` chooses the threshold, and `measured` is
    measured. `left_out` counts the solutions that are missing in `measured`."""

    source: str
    truth: str
    fitting: list[JudgedSolution]
    measured: list[JudgedSolution]
    left_out: Counter[str]


@dataclass(frozen=True, kw_only=True)
class StepSet:
    """Scored steps of one kind: `fitting` fits a calibration, and `measured` measures it."""

    fitting: list[ScoredPrefix]
    measured: list[ScoredPrefix]


def calibrations(
    sets: Mapping[str, StepSet], aim: Aim, bins: int, seed: int
) -> tuple[CalibrationRow, ...]:
    """Rows for each kind of steps before and after recalibration; none for a kind without steps."""
    rows: list[CalibrationRow] = []
    for steps, chosen in sets.items():
        forms = recalibrations(chosen.fitting) if chosen.fitting and chosen.measured else ()
        for form in forms:
            found = calibration(form.apply(chosen.measured), seed, bins)
            rows.append(
                CalibrationRow(
                    steps=steps,
                    form=form.form,
                    scale=form.scale,
                    shift=form.shift,
                    temperature=1 / form.scale if form.scale else None,
                    fitted_on=len(chosen.fitting),
                    measured_on=len(chosen.measured),
                    brier_skill=found.brier_skill,
                    brier_skill_outcomes=found.brier_skill_outcomes,
                    calibration_error=found.calibration_error,
                    calibration_error_raw=found.calibration_error_raw,
                    bins=found.bins,
                    aim=aim_of(found, aim),
                )
            )
    return tuple(rows)


def aim_of(found: Calibration, aim: Aim) -> str:
    """ "met" or "missed" if the 95 % intervals decide it, else "undecided". The Brier skill is that
    against success rates if they are known, else that against single outcomes."""
    error, skill = found.calibration_error, found.brier_skill or found.brier_skill_outcomes
    if error.low > aim.calibration_error or skill is None or skill.high < aim.brier_skill:
        return "missed"
    met = error.high <= aim.calibration_error and skill.low >= aim.brier_skill
    return "met" if met else "undecided"


def first_errors(bench: Bench, seed: int) -> FirstErrorRow:
    """The first errors of a bench. There is no threshold if the fitting side lacks one of the two
    kinds of solutions."""
    found: FirstErrors | None = None
    if len({s.label == NO_ERROR for s in bench.fitting}) == 2:
        threshold = choose_threshold(bench.fitting)
        found = measure_first_errors(bench.measured, threshold, seed)
    return FirstErrorRow(
        source=bench.source,
        truth=bench.truth,
        solutions=len(bench.measured),
        erroneous_solutions=sum(s.label != NO_ERROR for s in bench.measured),
        fitting_solutions=len(bench.fitting),
        left_out=dict(bench.left_out),
        threshold=found.threshold if found else None,
        erroneous=found.erroneous if found else None,
        correct=found.correct if found else None,
        f1=found.f1 if found else None,
    )


@dataclass(frozen=True, kw_only=True)
class BestOfNResults:
    """Best of N for every aggregate, pass@N, and the accuracy of a single sample."""

    sample_accuracy: Estimate
    rows: tuple[BestOfN, ...]
    over_optimisation: tuple[OverOptimisation, ...]
    pass_at_n: tuple[PassAtN, ...]
    pools_left_out: int


def best_of_n_results(
    pool: Sequence[SearchResult], samples: int, likelihood_weight: float
) -> BestOfNResults:
    """Best of N over the pools. Problems whose prompt does not fit into the policy's context have
    no pool and are left out."""
    asked = len(pool)
    pool = [result for result in pool if ends_of_paths(result)]
    groups = groups_of(r.problem for r in pool)
    weighted = [LAST_WEIGHTED] if likelihood_weight > 0 else []
    rows: list[BestOfN] = []
    losses: list[OverOptimisation] = []
    for aggregate in [*AGGREGATES, *weighted]:
        pools = [candidates(r, aggregate, likelihood_weight) for r in pool]
        found, loss = best_of_n(aggregate, pools, groups, samples)
        rows += found
        losses.append(loss)
    pools = [candidates(r, "last") for r in pool]
    correct = [sum(c.count for c in p if c.correct) for p in pools]
    passes = {n: [expected_pass(samples, c, n) for c in correct] for n in powers_of_two(samples)}
    return BestOfNResults(
        sample_accuracy=share_estimate([expected_best(p, 1)[0] for p in pools], groups),
        rows=tuple(rows),
        over_optimisation=tuple(losses),
        pass_at_n=tuple(PassAtN(n=n, solved=share_estimate(v, groups)) for n, v in passes.items()),
        pools_left_out=asked - len(pool),
    )


def reliability_rows(evaluation: RewardModelEvaluation) -> list[dict[str, Any]]:
    return [
        {"steps": row.steps, "form": row.form, **asdict(b)}
        for row in evaluation.calibration
        for b in row.bins
    ]


def headline(evaluation: RewardModelEvaluation) -> dict[str, float | str | None]:
    """The numbers for the manifest and W&B."""
    found: dict[str, float | str | None] = {"auroc": _value(evaluation.auroc)}
    found |= auroc_metrics(evaluation.auroc_by_depth)
    for row in evaluation.calibration:
        name = f"{row.form}_{row.steps.replace('-', '_')}"
        found[f"calibration_error_{name}"] = row.calibration_error.value
        found[f"brier_skill_{name}"] = _value(row.brier_skill or row.brier_skill_outcomes)
        found[f"aim_{name}"] = row.aim
    for row in evaluation.first_errors:
        name = f"{Path(row.source).stem}_{row.truth.replace(' ', '_')}"
        found[f"first_error_f1_{name}"] = _value(row.f1)
    for row in evaluation.best_of_n:
        found[f"uplift_{row.aggregate}_{row.n}"] = row.uplift.value
    return found


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None
