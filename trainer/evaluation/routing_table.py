"""The results of a router as Markdown tables."""

from __future__ import annotations

from trainer.measures.results import RoutingResults
from trainer.measures.statistics import Estimate


def routing_markdown(results: RoutingResults) -> str:
    best = results.best_fixed
    lines = [
        f"Fitted on {results.fitted_on} problems. The best fixed arm is {best.name}: "
        f"{_share(best.accuracy)} % for {best.flops / 1e6:.0f} MFLOPs per problem.",
        "",
        f"| {results.split} problems, n = {results.problems}: budget, % | accuracy, % | MFLOPs, "
        "with the look | of these the look | share of the best fixed arm's | best fixed arm for no "
        "more FLOPs | router minus it, points | router minus the best fixed arm | oracle, % | "
        "oracle minus router |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results.rows:
        fixed = row.fixed
        cheap = f"{fixed.name} ({fixed.flops / 1e6:.0f} MFLOPs)" if fixed else "none"
        against = _points(row.against_fixed) if row.against_fixed else ""
        lines.append(
            f"| {row.budget} | {_share(row.accuracy)} | {row.flops / 1e6:.0f} | "
            f"{row.look_flops / 1e6:.0f} | {row.flops / best.flops:.2f} | {cheap} | {against} | "
            f"{_points(row.against_best)} | {_share(row.oracle)} | {_points(row.oracle_gap)} |"
        )
    lines += ["", "| budget, % | share of the problems by arm, % |", "|---|---|"]
    for row in results.rows:
        shares = ", ".join(f"{name}: {100 * share:.0f}" for name, share in row.arms.items())
        lines.append(f"| {row.budget} | {shares} |")
    found = (
        "at no budget"
        if results.matched_flops_ratio is None
        else f"for {results.matched_flops_ratio:.2f} of its FLOPs (budget {results.matched_budget})"
    )
    lines += [
        "",
        f"No worse than the best fixed arm by {100 * results.margin:.0f} points: {found}. Some arm "
        f"is right on {_share(results.some_arm_right)} % of the problems.",
    ]
    return "\n".join(lines) + "\n"


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
