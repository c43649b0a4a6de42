"""Reads files of step labels as rows of token ids. The ids are those of the samples, or come from
tokenised text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.formats.base import FormatOptions
from data.formats.stepwise import labelled_groups, labels_row
from data.json_rows import numbered_rows
from data.sources import Row, read_source, take_in
from data.token_text import TokenText
from data.types import LabelledSolution, StepLabels
from search.laplace import laplace_error
from trainer.runtime.processes import is_main_process

TOO_LONG_PRINTED = 5


def read_training_rows(
    folders: Sequence[str], tokenizer: Any, max_length: int | None
) -> tuple[list[StepLabels], int]:
    """The rows of every folder's labels.jsonl, and the number of rows that were left out because
    they have more than `max_length` tokens. Raises ValueError for a bad row, with file, line and
    reason."""
    kept: list[StepLabels] = []
    too_long: list[StepLabels] = []
    for folder in folders:
        for row in read_label_rows(Path(folder) / "labels.jsonl", tokenizer):
            length = len(row.prompt_ids) + sum(map(len, row.completion_ids))
            fits = max_length is None or length <= max_length
            (kept if fits else too_long).append(row)
    if too_long and is_main_process():
        problems = list(dict.fromkeys(row.problem_id for row in too_long))
        print(
            f"left out: {len(too_long)} of {len(kept) + len(too_long)} rows have more than "
            f"{max_length} tokens; they are of {len(problems)} problems, such as "
            f"{', '.join(problems[:TOO_LONG_PRINTED])}",
            flush=True,
        )
    return kept, len(too_long)


def read_label_rows(path: Path, tokenizer: Any) -> list[StepLabels]:
    """Rows of token ids are read directly; rows of text are tokenised with `tokenizer`. All rows of
    a file are of one kind. Raises ValueError for a bad row, with file, line and reason."""
    first = next((row for row in read_source(str(path)) if isinstance(row, Row)), None)
    if first is not None and "completion_ids" in first.columns:
        return list(read_labels(path))
    text = TokenText(tokenizer)

    def make(row: Row, _: int) -> list[StepLabels]:
        solutions = labels_row(row, FormatOptions())
        return [tokenised(solution, text) for solution in solutions]

    made, bad = take_in(str(path), make)
    if bad:
        raise ValueError(f"{bad[0]} ({len(bad)} bad rows in all)")
    return [labels for row in made for labels in row]


def is_correct(row: StepLabels, end_token_ids: frozenset[int]) -> bool:
    """Whether the solution is right: it ends with an end token, and its last label, which is then
    the verifier's verdict, is 1."""
    return row.labels[-1] == 1.0 and row.completion_ids[-1][-1] in end_token_ids


def outcome_rows(rows: Sequence[StepLabels], end_token_ids: frozenset[int]) -> list[StepLabels]:
    """Each finished solution (it ends with an end token) as one step with the last label. The last
    label is the verifier's verdict; the labels of other steps are estimates."""
    return [
        replace(
            row,
            completions=("".join(row.completions),),
            completion_ids=(tuple(token for step in row.completion_ids for token in step),),
            labels=row.labels[-1:],
            counts=row.counts[-1:],
            standard_errors=row.standard_errors[-1:],
        )
        for row in rows
        if row.completion_ids[-1][-1] in end_token_ids
    ]


def tokenised(solution: LabelledSolution, text: TokenText) -> StepLabels:
    """Encode a prompt and its steps as search joins them, with the end token after the last step of
    a finished solution. A step without a label is joined to the next labelled step, so its
    end has no loss. Steps after the last label are left out.

    The standard error of a label is that of a share of `counts` rollouts under Laplace's rule
    (search/laplace.py), and NaN if the label does not come from rollouts. Raises ValueError for
    text that cannot be encoded, and for a labelled step without a token.
    """
    steps = text.encode_steps(solution.solution.steps)
    if solution.finished and text.end_token_id is not None:
        steps[-1] = (*steps[-1], text.end_token_id)
    groups = labelled_groups(solution.labels)
    completion_ids = tuple(
        tuple(token for step in steps[start:end] for token in step) for start, end in groups
    )
    for (_, end), ids in zip(groups, completion_ids, strict=True):
        if not ids:
            raise ValueError(f"completion {end} has a label but no token")
    labels = tuple(float(solution.labels[end - 1] or 0.0) for _, end in groups)
    counts = tuple(solution.counts[end - 1] for _, end in groups)
    return StepLabels(
        problem_id=solution.problem_id,
        prompt=solution.solution.prompt,
        prompt_ids=text.encode_prompt(solution.solution.prompt),
        completions=tuple("".join(solution.solution.steps[start:end]) for start, end in groups),
        completion_ids=completion_ids,
        labels=labels,
        counts=counts,
        standard_errors=tuple(
            laplace_error(label, count) if count else math.nan
            for label, count in zip(labels, counts, strict=True)
        ),
    )


def read_labels(path: Path) -> Iterator[StepLabels]:
    """The rows of a labels.jsonl. Raises ValueError for a bad row, with file, line and reason."""
    for number, row in numbered_rows(path):
        try:
            yield StepLabels(
                problem_id=row["problem_id"],
                prompt=row["prompt"],
                prompt_ids=tuple(row["prompt_ids"]),
                completions=tuple(row["completions"]),
                completion_ids=tuple(tuple(step) for step in row["completion_ids"]),
                labels=tuple(map(float, row["labels"])),
                counts=tuple(row["counts"]),
                standard_errors=tuple(row["standard_errors"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: not a row of step labels ({error!r})"
            ) from None
