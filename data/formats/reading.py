"""Read published step-label files as labelled solutions: the registry of formats, and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.formats.base import FormatOptions, Reader
from data.formats.math_shepherd import math_shepherd_row
from data.formats.omegaprm import omegaprm_row
from data.formats.prm800k import prm800k_row
from data.formats.stepwise import labels_row, trl_row
from data.sources import BadRow, Row, read_source, take_in
from data.types import LabelledSolution


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format. A row has this format when it has all of `columns` and none of `lacks`.

    `bare_question` is true when the prompt is only a question. It is false when the prompt is the
    exact text before the solution.
    """

    read: Reader
    columns: frozenset[str]
    lacks: frozenset[str] = frozenset()
    bare_question: bool = True


_STEPWISE = frozenset({"prompt", "completions", "labels"})
FORMATS: dict[str, Format] = {
    "prm800k": Format(read=prm800k_row, columns=frozenset({"question", "label"})),
    "math_shepherd": Format(read=math_shepherd_row, columns=frozenset({"input", "label"})),
    "omegaprm": Format(read=omegaprm_row, columns=frozenset({"question", "reasoning_steps"})),
    "trl": Format(
        read=trl_row, columns=_STEPWISE, lacks=frozenset({"counts"}), bare_question=False
    ),
    "labels": Format(read=labels_row, columns=_STEPWISE | {"counts"}, bare_question=False),
}


def detect_format(columns: Mapping[str, object]) -> str:
    """The one format whose columns a row has. Raises ValueError when no format or several formats
    fit."""
    present = {name for name, value in columns.items() if value is not None}
    fitting = [
        name
        for name, format in FORMATS.items()
        if format.columns <= present and not format.lacks & present
    ]
    if len(fitting) != 1:
        raise ValueError(
            f"a row with the columns {', '.join(sorted(present)[:20])} looks like "
            f"{' and '.join(fitting) or 'no known format'}; name one of {', '.join(FORMATS)}"
        )
    return fitting[0]


def format_of_source(source: str) -> str:
    """The format of the first row of a source that is an object. Raises ValueError when
    `detect_format` does, and for a source without such a row."""
    for row in read_source(source):
        if isinstance(row, Row):
            return detect_format(row.columns)
    raise ValueError(f"source {source!r} has no row that is an object")


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """The counts of a source.

    `rows` counts all rows. `rejected` counts the rows that could not be used, and `unlabelled` the
    valid rows without a label. `steps` counts a step once per solution that contains it.
    `labelled_steps` counts each label once, and `positive` counts the labels of at least 0.5.
    """

    rows: int
    rejected: int
    unlabelled: int
    problems: int
    solutions: int
    steps: int
    labelled_steps: int
    positive: int
    mean_label: float

    @property
    def share_positive(self) -> float:
        return self.positive / self.labelled_steps if self.labelled_steps else 0.0


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """The solutions of a source. Each of `bad_rows` gives the file, the line and the reason."""

    solutions: tuple[LabelledSolution, ...]
    bad_rows: tuple[BadRow, ...]
    summary: LabelSummary


def read_labelled(source: str, format: str, options: FormatOptions | None = None) -> LabelledRows:
    """Read a source (see `data.sources`) in one of `FORMATS`. Rows that cannot be used are listed
    in `bad_rows`, and reading goes on.

    Raises ValueError for an unknown format and for a source without rows.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; allowed: {', '.join(FORMATS)}")
    read, options = FORMATS[format].read, options or FormatOptions()
    made, bad = take_in(source, lambda row, _: read(row, options))
    solutions = tuple(solution for row in made for solution in row)
    return LabelledRows(
        solutions=solutions, bad_rows=tuple(bad), summary=_summary(made, solutions, len(bad))
    )


def _summary(
    made: Sequence[Sequence[LabelledSolution]],
    solutions: Sequence[LabelledSolution],
    rejected: int,
) -> LabelSummary:
    labels = [label for s in solutions for label in s.labels if label is not None]
    return LabelSummary(
        rows=len(made) + rejected,
        rejected=rejected,
        unlabelled=sum(not row for row in made),
        problems=len({solution.problem_id for solution in solutions}),
        solutions=len(solutions),
        steps=sum(len(solution.labels) for solution in solutions),
        labelled_steps=len(labels),
        positive=sum(label >= 0.5 for label in labels),
        mean_label=sum(labels) / len(labels) if labels else 0.0,
    )
