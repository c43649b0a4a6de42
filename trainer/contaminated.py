"""Contamination of a data folder: what its splits share with each other and with test sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from data.contamination import Overlap, cross_overlaps
from data.problems import read_demonstrations, read_problems, write_demonstrations, write_problems
from data.sources import BadRow, Row, take_in
from data.tasks.rows import group_of
from data.types import Problem
from trainer.stage import StageRecord

TRAINING_SIDE = ("train", "demonstrations")
EXAMPLES_PRINTED = 5


def question_of(problem: Problem) -> str:
    """The question without the words that every prompt has around it, where the group is it."""
    asked = group_of(problem.group)
    return asked if asked and asked in group_of(problem.prompt) else problem.prompt


def check_contamination(
    folder: Path,
    test_sets: Mapping[str, Mapping[str, str]],
    threshold: float,
    *,
    drop: bool,
    record: StageRecord,
) -> None:
    """Write contamination.jsonl, and the counts by pair of sets into the stage's metrics. With
    `drop`, the overlaps are left out of the training side's files. `test_sets` hold questions by
    the name of their source."""
    problems = {name: read_problems(folder / f"{name}.jsonl") if _any(folder, name) else []
                for name in ("test", "validation", "train")}  # fmt: skip
    demonstrations = (
        read_demonstrations(folder / "demonstrations.jsonl")
        if _any(folder, "demonstrations")
        else []
    )
    sets = {name: {p.id: question_of(p) for p in split} for name, split in problems.items()}
    sets["demonstrations"] = {d.problem.id: question_of(d.problem) for d in demonstrations}
    found = cross_overlaps({**sets, **test_sets}, ["test", "validation", *test_sets], threshold)
    # A test set of the list may be the one that the test split comes from.
    reported = [o for o in found if not (o.second in test_sets and o.first in test_sets)]
    _report(reported, folder, record)
    bad = {
        (name, id)
        for overlap in found
        for name, id in (
            (overlap.first, overlap.first_id),
            (overlap.second, overlap.second_id),
        )
        if name in TRAINING_SIDE
    }
    record.metrics["contamination/dropped"] = len(bad) if drop else 0
    if drop and bad:
        kept = [p for p in problems["train"] if ("train", p.id) not in bad]
        write_problems(folder / "train.jsonl", kept)
        write_demonstrations(
            folder / "demonstrations.jsonl",
            [d for d in demonstrations if ("demonstrations", d.problem.id) not in bad],
        )


def _report(found: Sequence[Overlap], folder: Path, record: StageRecord) -> None:
    counts: Counter[str] = Counter()
    for overlap in found:
        kind = "exact" if overlap.exact else "near"
        counts[f"contamination/{kind}"] += 1
        counts[f"contamination/{overlap.first} and {overlap.second}/{kind}"] += 1
    totals = {f"contamination/{kind}": 0 for kind in ("exact", "near")}
    record.metrics |= totals | dict(counts)
    with (folder / "contamination.jsonl").open("w", encoding="utf-8") as file:
        for overlap in found:
            file.write(json.dumps(asdict(overlap)) + "\n")
    for overlap in found[:EXAMPLES_PRINTED]:
        print(
            f"contamination: {overlap.first} {overlap.first_id} and {overlap.second} "
            f"{overlap.second_id}, similarity {overlap.similarity:.2f}",
            flush=True,
        )


def _any(folder: Path, name: str) -> bool:
    return (folder / f"{name}.jsonl").stat().st_size > 0


def read_questions(source: str) -> tuple[dict[str, str], list[BadRow]]:
    """A test set's questions by row number, and its rows without one."""

    def make(row: Row, number: int) -> tuple[str, str]:
        return str(number), row.text("question", "problem", "prompt", "text")

    questions, bad = take_in(source, make)
    return dict(questions), bad
