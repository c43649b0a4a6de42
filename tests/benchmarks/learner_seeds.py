"""Learners over several seeds: means with 95 % intervals of Student's t, paired within a seed.

python tests/benchmarks/learner_seeds.py outputs/learners-1 outputs/learners-2 ...

Each folder is a run of recipes/countdown/learners.yaml or ablation.yaml with a seed of its own
(--set seed=S --set output_dir=...). An interval over seeds holds for another seed's run, which the
intervals of one run, over test problems, do not.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, low and high end. Raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError("an interval over seeds needs at least two runs")
    mean, n = statistics.fmean(values), len(values)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


def in_all(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in runs[0] if all(name in run for run in runs)]


def line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def percent(values: Sequence[float], sign: str = "") -> str:
    mean, low, high = (100 * value for value in t_interval(values))
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def tables(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Three tables as Markdown: learners, their differences, and their curves while training."""
    learners = [{row["name"]: row for row in run["learners"]} for run in results]
    names = in_all(learners)
    out = [f"{len(results)} seeds: {', '.join(str(run['seed']) for run in results)}", ""]
    out += [line(("learner", "sampled tokens, least to most", "greedy, test, %")), "|---|---|---|"]
    for name in names:
        tokens = [run[name]["sampled_tokens"] for run in learners]
        values = [run[name]["test"][-1]["value"] for run in learners]
        out.append(line((name, f"{min(tokens):,} to {max(tokens):,}", percent(values))))
    out += ["", line(("difference", "points", "of each seed")), "|---|---|---|"]
    for name in in_all([run["comparisons"] for run in results]):
        values = [run["comparisons"][name]["difference"] for run in results]
        each = ", ".join(f"{100 * value:+.1f}" for value in values)
        out.append(line((name, percent(values, "+"), each)))
    out += ["", line(("learner", "tokens, mean", "validation, %")), "|---|---|---|"]
    for name in names:
        for points in zip(*(run[name]["validation"] for run in learners), strict=False):
            tokens = statistics.fmean(point["sampled_tokens"] for point in points)
            out.append(line((name, f"{tokens:,.0f}", percent([p["value"] for p in points]))))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders with results.json")
    runs = parser.parse_args().runs
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    if len({run["seed"] for run in results}) < len(results):
        raise SystemExit("two of the runs have the same seed: they would count twice")
    print("\n".join(tables(results)))


if __name__ == "__main__":
    main()
