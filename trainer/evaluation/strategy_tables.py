"""The comparison of search strategies as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_markdown(content: Mapping[str, Any]) -> str:
    """The comparison as tables."""
    n = content["accuracy"][0]["n"]
    lines = [
        f"| {content['split']} problems, n = {n} | budget | accuracy, % | MFLOPs | tokens |"
        " minus best of N at equal FLOPs, points |",
        "|---|---|---|---|---|---|",
    ]
    equal = {(row["strategy"], row["budget"]): row for row in content["equal_flops"]}
    for row in content["accuracy"]:
        c = equal.get((row["strategy"], row["budget"]))
        against = f"{_points(c, 'difference')} {c['metric']}" if c else ""
        lines.append(
            f"| {row['strategy']} | {row['budget']} | {100 * row['value']:.1f} "
            f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}] | {row['flops'] / 1e6:.0f} | "
            f"{row['generated_tokens']:.0f} | {against} |"
        )
    lines += ["", "| growth | last minus first, points | slope, points a doubling | drops, p |"]
    lines += ["|---|---|---|---|"]
    for row in content["growth"]:
        drops = ", ".join(f"{p:.2g}" for p in row["adjacent_drops"])
        lines.append(
            f"| {row['arm']} | {_points(row['last_minus_first'])} | {_points(row['slope'])} | "
            f"{drops} |"
        )
    margin = f"{100 * content['margin']:.0f} points"
    lines += [
        "",
        f"| no worse than best of {content['target']} by {margin} | budget | FLOPs, share |",
    ]
    lines += ["|---|---|---|"]
    for row in content["matches"]:
        ratio = "" if row["flops_ratio"] is None else f"{row['flops_ratio']:.2f}"
        lines.append(f"| {row['arm']} | {row['budget'] or 'none'} | {ratio} |")
    return "\n".join(lines) + "\n"


def _points(row: Mapping[str, Any], key: str = "value") -> str:
    return f"{100 * row[key]:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
