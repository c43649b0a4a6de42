"""The comparison of search strategies as Markdown tables."""

from __future__ import annotations

from trainer.measures.results import StrategyComparison
from trainer.measures.statistics import Estimate


def comparison_markdown(comparison: StrategyComparison) -> str:
    """The comparison as tables."""
    n = comparison.accuracy[0].n
    lines = [
        f"| {comparison.split} problems, n = {n} | budget | accuracy, % | MFLOPs |"
        " MFLOPs with kept prefixes | tokens | minus best of N at equal FLOPs, points |"
        " the same with kept prefixes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    equal = {(row.strategy, row.budget, row.kept_prefixes): row for row in comparison.equal_flops}
    for row in comparison.accuracy:
        against, kept = (
            f"{_points(c.difference, c.low, c.high)} {c.metric}" if c else ""
            for c in (equal.get((row.strategy, row.budget, kept)) for kept in (False, True))
        )
        lines.append(
            f"| {row.strategy} | {row.budget} | {100 * row.value:.1f} "
            f"[{100 * row.low:.1f}, {100 * row.high:.1f}] | {row.flops / 1e6:.0f} | "
            f"{row.flops_with_kept_prefixes / 1e6:.0f} | {row.generated_tokens:.0f} | {against} |"
            f" {kept} |"
        )
    lines += ["", "| growth | last minus first, points | slope, points per doubling | drops, p |"]
    lines += ["|---|---|---|---|"]
    for row in comparison.growth:
        drops = ", ".join(f"{p:.2g}" for p in row.adjacent_drops)
        lines.append(
            f"| {row.strategy} | {_estimate(row.last_minus_first)} | {_estimate(row.slope)} "
            f"| {drops} |"
        )
    margin = f"{100 * comparison.margin:.0f} points"
    lines += [
        "",
        f"| no worse than best of {comparison.target_best_of_n} by {margin} | budget "
        "| FLOPs, share |",
    ]
    lines += ["|---|---|---|"]
    for row in comparison.matches:
        ratio = "" if row.flops_ratio is None else f"{row.flops_ratio:.2f}"
        lines.append(f"| {row.strategy} | {row.budget or 'none'} | {ratio} |")
    return "\n".join(lines) + "\n"


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _estimate(estimate: Estimate) -> str:
    return _points(estimate.value, estimate.low, estimate.high)
