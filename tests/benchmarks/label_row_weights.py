"""How far labels lean when a prefix counts as often as there are rows with it (docs/labels.md, case
4), from a folder of monte_carlo labels alone.

python tests/benchmarks/label_row_weights.py outputs/countdown-five/label

Of the n samples through a prefix one is left out. Its verdict y is an unbiased estimate of the
prefix's success rate, independent of the others: D (k / (n - 1) - y), D and k counted without it,
is an unbiased estimate of the weighted error of a label from n - 1 samples.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from data.types import StepLabels
from trainer.labels.label_files import read_labels


def through(rows: Iterable[StepLabels]) -> dict[tuple[int, ...], list[tuple[int, float]]]:
    """Of each non-terminal prefix: how often each solution was sampled, and its verdict."""
    found: dict[tuple[int, ...], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        prefix: tuple[int, ...] = ()
        for step in row.completion_ids[:-1]:
            prefix += step
            found[prefix].append((row.counts[-1], row.labels[-1]))
    return found


def left_out(solutions: list[tuple[int, float]]) -> Iterator[tuple[int, float, float, int]]:
    """(times, weight, error, n - 1) for each sample that can be left out of n >= 2."""
    n = sum(times for times, _ in solutions)
    correct = sum(times * verdict for times, verdict in solutions)
    if n < 2:
        return
    for times, verdict in solutions:
        weight = len(solutions) - (times == 1)
        yield times, weight / n, (correct - verdict) / (n - 1) - verdict, n - 1


def main() -> None:
    labels = read_labels(Path(sys.argv[1]) / "labels.jsonl")
    error: dict[int, float] = defaultdict(float)
    weight: dict[int, float] = defaultdict(float)
    square: dict[int, float] = defaultdict(float)
    steps: dict[int, int] = defaultdict(int)
    for _, rows in groupby(labels, key=lambda row: row.problem_id):
        here: dict[int, float] = defaultdict(float)
        for solutions in through(rows).values():
            steps[sum(times for times, _ in solutions)] += len(solutions)
            for times, share, difference, n in left_out(solutions):
                here[n] += times * share * difference
                weight[n] += times * share
        for n, value in here.items():
            error[n] += value
            square[n] += value**2
    for n in sorted(error):
        half = 1.959964 * math.sqrt(square[n]) / weight[n]
        print(f"{n} rollouts: {error[n] / weight[n]:+.4f} ± {half:.4f}")
    whole = sum(steps[n] * error[n] / weight[n] for n in error) / sum(steps.values())
    print(f"over all steps of rows: {whole:+.4f} (counts above {max(error)} left out)")


if __name__ == "__main__":
    main()
