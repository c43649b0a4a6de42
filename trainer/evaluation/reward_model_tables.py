"""Writes a reward model's evaluation as Markdown tables, and flattens its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.measures.results import RewardModelEvaluation
from trainer.measures.statistics import Estimate

# Estimates that may be absent; their columns always exist.
ESTIMATE_COLUMNS = ("auroc", "brier_skill", "brier_skill_outcomes", "erroneous", "correct", "f1")


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with one level: an estimate becomes a value and the two ends of its interval. Lists
    are left out."""
    columns: dict[str, Any] = {}
    ends = ("", "_low", "_high")
    for key, value in row.items():
        if isinstance(value, Mapping) and "low" in value:
            columns |= {
                key: value["value"],
                f"{key}_low": value["low"],
                f"{key}_high": value["high"],
            }
        elif isinstance(value, Mapping):
            columns[key] = ", ".join(f"{name}: {item}" for name, item in value.items())
        elif value is None and key in ESTIMATE_COLUMNS:
            columns |= {f"{key}{end}": None for end in ends}
        elif not isinstance(value, list | tuple):
            columns[key] = value
    return columns


def reward_model_markdown(evaluation: RewardModelEvaluation) -> str:
    lines = [
        f"Measured on {evaluation.problems} {evaluation.split} problems; what is fitted comes from "
        f"{evaluation.fitting_problems} {evaluation.fitting_split} problems. Values with 95 % "
        "intervals.",
        "",
        f"AUROC within problems over {evaluation.prefixes} non-terminal prefixes, against success "
        f"rates of {evaluation.rollouts} rollouts each: {_number(evaluation.auroc)} "
        f"({evaluation.auroc_pairs} pairs). Mean success rate {_number(evaluation.success_rate)}.",
        "",
        *_auroc_by_depth(evaluation),
        *_calibration(evaluation),
        *_solvability(evaluation),
        *_first_errors(evaluation),
        *_best_of_n(evaluation),
    ]
    return "\n".join(lines) + "\n"


def _auroc_by_depth(evaluation: RewardModelEvaluation) -> list[str]:
    """Reach: the problem can still be solved. Success: how often the policy solves it."""
    lines = [
        "| truth | steps | from | AUROC within problems | pairs | prefixes | mean of the truth |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in evaluation.auroc_by_depth:
        mean = "none" if row.mean is None else f"{row.mean:.3f}"
        lines.append(
            f"| {row.truth} | {row.steps} | {row.evidence} | {_number(row.auroc)} | {row.pairs} | "
            f"{row.prefixes} | {mean} |"
        )
    return [*lines, ""]


def _calibration(evaluation: RewardModelEvaluation) -> list[str]:
    aim = evaluation.aim
    lines = [
        "| steps | scores | scale | shift | calibration error | raw | Brier skill | of single "
        f"outcomes | error <= {aim.calibration_error:g}, skill >= {aim.brier_skill:g} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = {"none": "as they are", "temperature": "by temperature", "platt": "by Platt's form"}
    for row in evaluation.calibration:
        lines.append(
            f"| {row.steps}, n = {row.measured_on} | {names[row.form]} | "
            f"{row.scale:.3f} | {row.shift:.3f} | "
            f"{_number(row.calibration_error)} | {row.calibration_error_raw:.3f} | "
            f"{_number(row.brier_skill)} | {_number(row.brier_skill_outcomes)} | "
            f"{row.aim} |"
        )
    return [*lines, ""]


def _solvability(evaluation: RewardModelEvaluation) -> list[str]:
    row = evaluation.solvability
    if row is None:
        return []
    lines = [
        f"By the exhaustive solver the target is in reach after {row.in_reach} of the "
        f"{row.prefixes} prefixes. AUROC within problems for that: {_number(row.auroc)} "
        f"({row.pairs} pairs). Mean score in reach {_number(row.score_in_reach)}, out of "
        f"reach {_number(row.score_out_of_reach)}; the policy's mean success rate in reach "
        f"{_number(row.success_in_reach)}.",
    ]
    if row.solved_out_of_reach:
        lines.append(
            f"{row.solved_out_of_reach} prefixes out of reach were solved all the same, by "
            "results over the largest value that the solver may use."
        )
    return [*lines, ""]


def _first_errors(evaluation: RewardModelEvaluation) -> list[str]:
    if not evaluation.first_errors:
        return []
    lines = [
        "| first errors | truth | threshold | erroneous, % | correct, % | F1, % | solutions | "
        "left out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in evaluation.first_errors:
        threshold = "none" if row.threshold is None else f"{row.threshold:.3g}"
        left_out = ", ".join(f"{n} {why}" for why, n in row.left_out.items() if n)
        lines.append(
            f"| {row.source} | {row.truth} | {threshold} | {_percent(row.erroneous)} | "
            f"{_percent(row.correct)} | {_percent(row.f1)} | {row.solutions}, "
            f"{row.erroneous_solutions} erroneous | {left_out} |"
        )
    return [*lines, ""]


def _best_of_n(evaluation: RewardModelEvaluation) -> list[str]:
    rows = {(row.aggregate, row.n): row for row in evaluation.best_of_n}
    aggregates = list(dict.fromkeys(aggregate for aggregate, _ in rows))
    lines = [
        f"Best of N over all subsets of {evaluation.samples} samples a problem; accuracy of one "
        f"sample {_percent(evaluation.sample_accuracy)} %. Uplift in points, gold accuracy minus "
        "that:",
        "",
        f"| N | KL, nats | {' | '.join(aggregates)} | pass@N, % | mean score chosen (last) |",
        "|" + "---|" * (len(aggregates) + 4),
    ]
    for passed in evaluation.pass_at_n:
        n = passed.n
        uplifts = " | ".join(_points(rows[a, n].uplift) for a in aggregates)
        lines.append(
            f"| {n} | {rows['last', n].kl:.3f} | {uplifts} | {_percent(passed.solved)} | "
            f"{rows['last', n].proxy.value:.3f} |"
        )
    lines += [
        "",
        "| over-optimisation | best N | gold at the largest N minus gold at the best, points |",
        "|---|---|---|",
    ]
    for row in evaluation.over_optimisation:
        loss = "none" if row.best_n == row.last_n else _points(row.last_minus_best)
        lines.append(f"| {row.aggregate} | {row.best_n} | {loss} |")
    return lines


def _number(row: Estimate | None) -> str:
    if row is None:
        return "none"
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _percent(row: Estimate | None) -> str:
    if row is None:
        return "none"
    return f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def _points(row: Estimate) -> str:
    return f"{100 * row.value:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
