"""Prints a run's results as a short table on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def print_results(results: Mapping[str, Any]) -> None:
    """Print each policy's accuracy per strategy at its largest budget, and the comparisons, with 95
    % intervals. `results` is the content of results.json."""
    largest = {(row["policy"], row["strategy"]): row for row in results["accuracy"]}
    for row in results["accuracy"]:
        key = row["policy"], row["strategy"]
        largest[key] = max(largest[key], row, key=lambda r: r["budget"])
    wide = 2 + max((len(row["policy"]) for row in results["accuracy"]), default=8)
    print(
        f"\n{'policy':<{wide}}{'strategy':<22}{'budget':>7}{'accuracy':>10}   95 % interval       n"
    )
    for row in largest.values():
        print(
            f"{row['policy']:<{wide}}{row['strategy']:<22}{row['budget']:>7}"
            f"{100 * row['value']:>8.1f} %   [{100 * row['low']:.1f}, {100 * row['high']:.1f}] %"
            f"  {row['n']:>6}"
        )
    wide = 2 + max((len(name) for name in results["comparisons"]), default=26)
    print(f"\n{'comparison':<{wide}}{'difference':>12}   95 % interval          n")
    for name, c in results["comparisons"].items():
        print(
            f"{name:<{wide}}{100 * c['difference']:>+11.1f}   "
            f"[{100 * c['low']:+.1f}, {100 * c['high']:+.1f}] points  {c['n']:>6}"
        )
    for gain in results["gains"]:
        for missing in gain["missing"]:
            print(f"no control of {gain['comparison']}: {missing}")
    for warning in results["warnings"]:
        print(f"warning of {warning['stage']}: {warning['text']}")
