"""Files of JSON lines that grow with every cycle and are cut back when a run resumes. Also converts
usage to plain numbers and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from data.row_files import read_whole_lines
from data.types import ModelUsage, Usage

METRICS, EVALUATIONS = "metrics.jsonl", "evaluations.jsonl"  # files of a trained policy's folder


def usage_numbers(usage: Usage) -> list[float]:
    return [
        float(getattr(side, f.name))
        for side in (usage.policy, usage.reward)
        for f in fields(ModelUsage)
    ]


def usage_of(numbers: Sequence[float]) -> Usage:
    names = [f.name for f in fields(ModelUsage)]
    sides = [numbers[: len(names)], numbers[len(names) :]]
    policy, reward = (_side(dict(zip(names, side, strict=True))) for side in sides)
    return Usage(policy=policy, reward=reward)


def _side(values: Mapping[str, float]) -> ModelUsage:
    numbers: Any = {k: v if k.endswith("flops") else round(v) for k, v in values.items()}
    return ModelUsage(**numbers)


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def keep_before(path: Path, cycle: int) -> None:
    """Drop the rows of `cycle` and of later cycles, and an incomplete last line."""
    if not path.exists():
        return
    rows = [json.loads(line) for line in read_whole_lines(path)]
    temporary = path.with_suffix(".kept")
    temporary.write_text("")
    append_rows(temporary, [row for row in rows if row["cycle"] < cycle])
    temporary.replace(path)
