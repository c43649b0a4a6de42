"""What a reward model's evaluation holds, from its samples: the rows of prm.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewards.aggregate import AGGREGATES
from search.base import SearchResult
from trainer.evaluation.policies import groups_of
from trainer.evaluation.reward_model_samples import WEIGHTED, candidates, ends_of_paths
from trainer.measures.best_of_n import best_of_n, expected_best, expected_pass, powers_of_two
from trainer.measures.first_errors import (
    NO_ERROR,
    JudgedSolution,
    choose_threshold,
    measure_first_errors,
)
from trainer.measures.recalibration import recalibrations
from trainer.measures.score_quality import Calibration, ScoredPrefix, calibration
from trainer.measures.statistics import share_estimate


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Solutions with first errors of one kind, those to choose the threshold on and those to
    measure; `left_out` of the latter."""

    source: str
    truth: str
    fitting: list[JudgedSolution]
    measured: list[JudgedSolution]
    left_out: Counter[str]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """The largest calibration error and the least Brier skill."""

    calibration_error: float
    brier_skill: float


@dataclass(frozen=True, kw_only=True)
class StepSet:
    """Scored steps of one kind, to fit a calibration on and to measure it."""

    fitting: list[ScoredPrefix]
    measured: list[ScoredPrefix]


def calibrations(
    sets: Mapping[str, StepSet], aim: Aim, bins: int, seed: int
) -> list[dict[str, Any]]:
    """Each kind of steps before and after; no rows for a kind without steps."""
    rows: list[dict[str, Any]] = []
    for steps, chosen in sets.items():
        forms = recalibrations(chosen.fitting) if chosen.fitting and chosen.measured else ()
        for form in forms:
            found = calibration(form.apply(chosen.measured), seed, bins)
            rows.append(
                {
                    "steps": steps,
                    **asdict(form),
                    "temperature": 1 / form.scale if form.scale else None,
                    "fitted_on": len(chosen.fitting),
                    "measured_on": len(chosen.measured),
                    **asdict(found),
                    "aim": aim_of(found, aim),
                }
            )
    return rows


def aim_of(found: Calibration, aim: Aim) -> str:
    """ "met" or "missed" where the 95 % intervals say so, else "undecided". Brier skill is that for
    success rates, where they are known, else that of single outcomes."""
    error, skill = found.calibration_error, found.brier_skill or found.brier_skill_outcomes
    if error.low > aim.calibration_error or skill is None or skill.high < aim.brier_skill:
        return "missed"
    met = error.high <= aim.calibration_error and skill.low >= aim.brier_skill
    return "met" if met else "undecided"


def first_errors(bench: Bench, seed: int) -> dict[str, Any]:
    """Without a threshold where the fitting side does not hold both kinds of solutions."""
    erroneous = sum(s.label != NO_ERROR for s in bench.measured)
    row: dict[str, Any] = {
        "source": bench.source,
        "truth": bench.truth,
        "solutions": len(bench.measured),
        "erroneous_solutions": erroneous,
        "fitting_solutions": len(bench.fitting),
        "left_out": dict(bench.left_out),
        "threshold": None,
        "erroneous": None,
        "correct": None,
        "f1": None,
    }
    if len({s.label == NO_ERROR for s in bench.fitting}) == 2:
        threshold = choose_threshold(bench.fitting)
        row |= asdict(measure_first_errors(bench.measured, threshold, seed))
    return row


def best_of_n_results(
    pool: Sequence[SearchResult], samples: int, likelihood_weight: float
) -> dict[str, Any]:
    """Problems whose prompt the policy cannot take have no pool and are left out."""
    asked = len(pool)
    pool = [result for result in pool if ends_of_paths(result)]
    groups = groups_of(r.problem for r in pool)
    weighted = [WEIGHTED] if likelihood_weight > 0 else []
    rows: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    for aggregate in [*AGGREGATES, *weighted]:
        pools = [candidates(r, aggregate, likelihood_weight) for r in pool]
        found, loss = best_of_n(aggregate, pools, groups, samples)
        rows += [asdict(row) for row in found]
        losses.append(asdict(loss))
    pools = [candidates(r, "last") for r in pool]
    correct = [sum(c.count for c in p if c.correct) for p in pools]
    passes = {n: [expected_pass(samples, c, n) for c in correct] for n in powers_of_two(samples)}
    return {
        "sample_accuracy": asdict(share_estimate([expected_best(p, 1)[0] for p in pools], groups)),
        "best_of_n": rows,
        "over_optimisation": losses,
        "pass_at_n": [
            {"n": n, "solved": asdict(share_estimate(v, groups))} for n, v in passes.items()
        ],
        "pools_left_out": asked - len(pool),
    }


def reliability_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"steps": row["steps"], "form": row["form"], **b}
        for row in content["calibration"]
        for b in row["bins"]
    ]


def headline(content: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers for the manifest and W&B."""
    found: dict[str, Any] = {"auroc": content["auroc"] and content["auroc"]["value"]}
    for row in content["calibration"]:
        name = f"{row['form']}_{row['steps'].replace('-', '_')}"
        skill = row["brier_skill"] or row["brier_skill_outcomes"]
        found[f"calibration_error_{name}"] = row["calibration_error"]["value"]
        found[f"brier_skill_{name}"] = skill and skill["value"]
        found[f"aim_{name}"] = row["aim"]
    for row in content["first_errors"]:
        name = f"{Path(row['source']).stem}_{row['truth'].replace(' ', '_')}"
        found[f"first_error_f1_{name}"] = row["f1"] and row["f1"]["value"]
    for row in content["best_of_n"]:
        found[f"uplift_{row['aggregate']}_{row['n']}"] = row["uplift"]["value"]
    return found
