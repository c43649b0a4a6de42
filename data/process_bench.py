"""Rows of ProcessBench (2412.06559): a problem, the steps of a solution, and its first error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data.sources import BadRow, Row, take_in


@dataclass(frozen=True, kw_only=True)
class ProcessBenchRow:
    """One row. `label` is the index of the first step with an error, or -1 when every step is
    right."""

    id: str
    problem: str
    steps: tuple[str, ...]
    label: int


def read_process_bench(source: str) -> tuple[list[ProcessBenchRow], list[BadRow]]:
    """The rows of a source (data/sources.py) and its rows that cannot be used.

    The columns are `problem`, `steps` and `label`. Other columns are ignored. An id consists of the
    source's name and the row's number. Raises ValueError for a source that does not exist, that has
    no rows, or that has no usable row.
    """
    stem = Path(source).name.removesuffix(".gz").removesuffix(".jsonl")

    def make(row: Row, number: int) -> ProcessBenchRow:
        steps = _steps(row.columns.get("steps"))
        return ProcessBenchRow(
            id=f"{stem}-{number}",
            problem=row.text("problem"),
            steps=steps,
            label=_label(row.columns.get("label"), len(steps)),
        )

    rows, bad = take_in(source, make)
    if not rows:
        raise ValueError(f"source {source!r} has no usable row; the first bad row: {bad[0]}")
    return rows, bad


def _steps(value: Any) -> tuple[str, ...]:
    steps = cast("list[Any]", value) if isinstance(value, list) else []
    if not steps:
        shown = str(cast("object", value))[:80]
        raise ValueError(f"steps is {shown!r}; it must be a list of at least one text")
    for index, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise ValueError(f"steps[{index}] is {str(step)[:80]!r}; it must be text, not blank")
    return tuple(steps)


def _label(value: Any, steps: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < steps:
        raise ValueError(
            f"label is {str(value)[:80]!r}; it must be -1 (no error) or the index of a step, 0 to "
            f"{steps - 1}"
        )
    return value
