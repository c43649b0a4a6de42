"""Stepwise-supervision rows as TRL defines them, and this project's own, read and written.

TRL's: `prompt`, `completions` (the steps) and `labels`, a bool a step; soft labels are read too.
TRL's tokenisation ends every step with a separator, a line break unless told otherwise, so "\\n" is
given to steps but the last where they do not have it.

Ours (labels.jsonl of the label and import stages) has the same columns and more: `problem_id`,
`counts`, `answer` and `finished`; labels are numbers in [0, 1], null where a step has none, and
steps hold their own delimiters, so nothing is added. A step may be empty: an end token alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.formats.base import (
    FormatOptions,
    as_answer,
    as_label,
    as_list,
    as_text,
    problem_id_of,
    shown,
    with_delimiter,
)
from data.sources import Row
from data.types import LabelledSolution, SteppedSolution

TRL_DELIMITER = "\n"


def trl_row(row: Row, options: FormatOptions) -> list[LabelledSolution]:
    """One solution, every step labelled. Raises ValueError."""
    delimiter = TRL_DELIMITER if options.delimiter is None else options.delimiter
    solution = _solution(row, delimiter, blank=False)
    for number, label in enumerate(solution.labels, start=1):
        if label is None:
            raise ValueError(f"label {number} is absent")
    return [solution]


def labels_row(row: Row, options: FormatOptions) -> list[LabelledSolution]:
    """One solution, some step labelled. Raises ValueError."""
    solution = _solution(row, options.delimiter or "", blank=True)
    if all(label is None for label in solution.labels):
        raise ValueError("labels holds no label")
    return [solution]


def _solution(row: Row, delimiter: str, *, blank: bool) -> LabelledSolution:
    columns = row.columns
    prompt = as_text(columns.get("prompt"), "prompt")
    texts = [
        as_text(text, f"completion {number}", blank=blank)
        for number, text in enumerate(as_list(columns.get("completions"), "completions"), start=1)
    ]
    if not texts:
        raise ValueError("completions is empty; there must be a step")
    labels = [
        None if value is None else as_label(value, f"label {number}")
        for number, value in enumerate(as_list(columns.get("labels"), "labels"), start=1)
    ]
    counts = [0] * len(texts)
    if columns.get("counts") is not None:
        counts = [_count(value) for value in as_list(columns["counts"], "counts")]
    for name, values in (("labels", labels), ("counts", counts)):
        if len(values) != len(texts):
            raise ValueError(f"{name} has {len(values)} values for {len(texts)} completions")
    problem_id, answer = columns.get("problem_id"), columns.get("answer")
    finished = columns.get("finished")
    if not (finished is None or isinstance(finished, bool)):
        raise ValueError(f"finished is {shown(finished)}; it must be true or false")
    return LabelledSolution(
        problem_id=problem_id_of(prompt)
        if problem_id is None
        else as_text(problem_id, "problem_id"),
        solution=SteppedSolution(prompt=prompt, steps=with_delimiter(texts, delimiter)),
        labels=tuple(labels),
        counts=tuple(counts),
        answer=as_answer(answer, "answer"),
        finished=finished is True,
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"counts holds {shown(value)}; it must hold integers of 0 or more")
    return value


def labels_columns(solution: LabelledSolution) -> dict[str, Any]:
    """Our own row of a solution; `labels_row` reads it back as it was."""
    return {
        "problem_id": solution.problem_id,
        "prompt": solution.solution.prompt,
        "completions": list(solution.solution.steps),
        "labels": list(solution.labels),
        "counts": list(solution.counts),
        "answer": solution.answer,
        "finished": solution.finished,
    }


def trl_columns(solution: LabelledSolution, threshold: float = 0.5) -> dict[str, Any]:
    """TRL's row of a solution with some label: bools, true from `threshold` on.

    TRL knows no unlabelled step, so such a step is joined to the labelled one that follows it, and
    what comes after the last label is left out. Raises ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; allowed: above 0, up to 1")
    steps = solution.solution.steps
    groups = labelled_groups(solution.labels)
    return {
        "prompt": solution.solution.prompt,
        "completions": ["".join(steps[start:end]) for start, end in groups],
        "labels": [(solution.labels[end - 1] or 0.0) >= threshold for _, end in groups],
    }


def labelled_groups(labels: Sequence[float | None]) -> list[tuple[int, int]]:
    """Ranges [start, end) of steps: each ends with a labelled step and begins after the last."""
    ends = [i + 1 for i, label in enumerate(labels) if label is not None]
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []
