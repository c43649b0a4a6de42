"""Read and write stepwise-supervision rows, in TRL's format and in the format of this project.

TRL's rows have `prompt`, `completions` (the steps) and `labels` (one bool per step). The reader
also accepts soft labels. TRL's tokenisation ends every step with a separator, by default a line
break. So the reader ends every step but the last with "\\n" if the step does not end with it.

The rows of this project (labels.jsonl of the label and import stages) have the same columns, and
also `problem_id`, `counts`, `answer` and `finished`. Labels are numbers in [0, 1], or null for a
step without a label. Steps contain their delimiters, so the reader adds nothing. A step may be
empty when it is the end token alone.
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
    """The one solution of a row of TRL's format. Raises ValueError for an invalid row and when a
    step has no label."""
    delimiter = TRL_DELIMITER if options.delimiter is None else options.delimiter
    solution = _solution(row, delimiter, blank=False)
    for number, label in enumerate(solution.labels, start=1):
        if label is None:
            raise ValueError(f"label {number} is absent")
    return [solution]


def labels_row(row: Row, options: FormatOptions) -> list[LabelledSolution]:
    """The one solution of a row of this project's format. Raises ValueError for an invalid row and
    when no step has a label."""
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
        raise ValueError("completions is empty; it must have at least one step")
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
    """The row of a solution in this project's format. `labels_row` reads it back unchanged."""
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
    """The row of a solution in TRL's format. A label is true when it is at least `threshold`.

    TRL has no steps without a label. So such a step is joined with the next step that has one, and
    the steps after the last label are left out. Raises ValueError for a threshold outside (0, 1].
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
    """Ranges [start, end) of steps. Each range ends with a labelled step, and the next range begins
    after it."""
    ends = [i + 1 for i, label in enumerate(labels) if label is not None]
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []
