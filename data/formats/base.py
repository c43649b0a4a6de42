"""What the readers of step-label files share: options, and checks of untrusted values.

A reader is a function from a row to the solutions that it holds. It raises ValueError, the reason
alone, for a row that cannot be used; `data.sources.take_in` adds file and line. In every format the
prompt and the steps of a solution, joined, are the text as published: nothing is stripped, and what
is added (a delimiter) or taken out (a tag) is said at the reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from data.sources import Row
from data.tasks.rows import group_of
from data.types import LabelledSolution, SteppedSolution

NEUTRAL: dict[str, float | None] = {"correct": 1.0, "unlabelled": None, "incorrect": 0.0}


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """How step labels are read where formats leave it open. Raises ValueError for another
    `neutral_rating`.
    """

    neutral_rating: str = "correct"
    """How a neutral rating (PRM800K's 0) is read: correct, incorrect or unlabelled."""
    delimiter: str | None = None
    """Text that ends every step but the last; null: the format's own."""

    def __post_init__(self) -> None:
        if self.neutral_rating not in NEUTRAL:
            raise ValueError(
                f"neutral_rating is {self.neutral_rating!r}; allowed: {', '.join(NEUTRAL)}"
            )


Reader = Callable[[Row, FormatOptions], list[LabelledSolution]]


def as_text(value: object, name: str, *, blank: bool = False) -> str:
    """Text with something in it, or any with `blank`. Half a character, as a wrong encoding leaves
    it, is an error."""
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


def as_mapping(value: object, name: str) -> Mapping[str, object]:
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}; it must be an object")
    return cast("dict[str, object]", value)


def as_list(value: object, name: str) -> list[object]:
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, list):
        raise ValueError(f"{name} is {shown(value)}; it must be a list")
    return cast("list[object]", value)


def as_label(value: object, name: str) -> float:
    """A number in [0, 1], or a bool. NaN is out of range."""
    if value is None:
        raise ValueError(f"{name} is absent")
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"{name} is {shown(value)}; it must be a number in [0, 1] or a bool")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {shown(value)}; it must be in [0, 1]")
    return float(value)


def shown(value: object) -> str:
    """A value in an error message, cut to a size one can read."""
    if isinstance(value, int) and abs(value) >= 10**20:  # str() refuses the largest ones
        return "an integer of over 20 digits"
    text = ascii(value) if isinstance(value, (str, bool, int, float)) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}..."


def problem_id_of(question: str) -> str:
    """The same for solutions of one question, whatever row, file or format they come from."""
    return hashlib.sha256(group_of(question).encode("utf-8")).hexdigest()[:16]


def with_delimiter(texts: Sequence[str], delimiter: str) -> tuple[str, ...]:
    """`texts` as steps: all but the last end with `delimiter`."""
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
