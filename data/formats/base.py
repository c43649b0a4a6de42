"""The options and the checks of untrusted values that all readers of step-label files share.

A reader is a function from a row to the solutions that the row holds. For a row that cannot be
used, it raises ValueError with the reason only, and `data.sources.take_in` adds the file and the
line. In every format, the prompt and the steps of a solution, joined, are the text as published.
Nothing is stripped. When a reader adds text (a delimiter) or removes text (a tag), its docstring
says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from data.json_rows import integer_as_text
from data.sources import Row
from data.tasks.rows import group_of
from data.types import LabelledSolution, SteppedSolution

NEUTRAL: dict[str, float | None] = {"correct": 1.0, "unlabelled": None, "incorrect": 0.0}


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """How step labels are read when the format leaves a choice. Raises ValueError for an unknown
    `neutral_rating`.
    """

    neutral_rating: str = "correct"
    """How a neutral rating (PRM800K's 0) is read: correct, incorrect or unlabelled."""
    delimiter: str | None = None
    """Text that ends every step but the last; null: the delimiter of the format."""

    def __post_init__(self) -> None:
        if self.neutral_rating not in NEUTRAL:
            raise ValueError(
                f"neutral_rating is {self.neutral_rating!r}; allowed: {', '.join(NEUTRAL)}"
            )


Reader = Callable[[Row, FormatOptions], list[LabelledSolution]]


def as_text(value: object, name: str, *, blank: bool = False) -> str:
    """The value as text. Raises ValueError when the value is not text, or when it is blank and
    `blank` is false. Also raises ValueError for half a character (a lone surrogate), which a wrong
    encoding leaves behind."""
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}; it must be text")
    if not blank and not value.strip():
        raise ValueError(f"{name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has half a character at {error.start}: the encoding is wrong"
        ) from None
    return value


def as_answer(value: object, name: str) -> str:
    """A final answer: text, or an integer; "" where there is none."""
    return "" if value is None else as_text(integer_as_text(value), name, blank=True)


def as_mapping(value: object, name: str) -> Mapping[str, object]:
    """The value as a mapping. Raises ValueError when it is not a JSON object."""
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}; it must be an object")
    return cast("dict[str, object]", value)


def as_list(value: object, name: str) -> list[object]:
    """The value as a list. Raises ValueError when it is not a JSON array."""
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, list):
        raise ValueError(f"{name} is {shown(value)}; it must be a list")
    return cast("list[object]", value)


def as_label(value: object, name: str) -> float:
    """The value, a number in [0, 1] or a bool, as a float. Raises ValueError for any other value.
    NaN is out of range."""
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"{name} is {shown(value)}; it must be a number in [0, 1] or a bool")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {shown(value)}; it must be in [0, 1]")
    return float(value)


def shown(value: object) -> str:
    """A value for an error message, cut to at most 80 characters and an ellipsis."""
    if isinstance(value, int) and abs(value) >= 10**20:  # str() refuses very large integers
        return "an integer of over 20 digits"
    text = ascii(value) if isinstance(value, (str, bool, int, float)) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}..."


def problem_id_of(question: str) -> str:
    """The problem id of a question. All solutions of one question get the same id, whatever row,
    file or format they come from."""
    return hashlib.sha256(group_of(question).encode("utf-8")).hexdigest()[:16]


def with_delimiter(texts: Sequence[str], delimiter: str) -> tuple[str, ...]:
    """The texts as steps. Every step but the last ends with `delimiter`."""
    ended = [text if text.endswith(delimiter) else text + delimiter for text in texts[:-1]]
    return (*ended, *texts[-1:])


def labelled(
    question: str,
    steps: Sequence[str],
    labels: Sequence[float | None],
    **fields: Any,
) -> LabelledSolution:
    """A solution whose labels do not come from a known number of rollouts."""
    return LabelledSolution(
        problem_id=problem_id_of(question),
        solution=SteppedSolution(prompt=question, steps=tuple(steps)),
        labels=tuple(labels),
        counts=(0,) * len(steps),
        **fields,
    )
