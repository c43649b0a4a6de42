"""Mathematics from rows: GSM8K's and MATH's formats, or one's own files in one of them.

GSM8K (2110.14168): `question`, and an `answer` of worked steps, one a line, calculator marks
`<<48/2=24>>` in them, and a last line `#### 72`. MATH (2103.03874): `problem`, `solution`, and
`answer`, or the solution's last box in its place.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from data.boxes import last_boxes
from data.prompts import PROMPTS, render
from data.sources import Row
from data.spelling import same_spelling
from data.tasks.base import Splits
from data.tasks.rows import group_of, splits_of_sources
from data.types import Demonstration, Problem

CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
SENTENCE_END = re.compile(r"(?<=[.?!]) +(?=[A-Z\\$])")


@dataclass(frozen=True, kw_only=True)
class MathConfig:
    """Where questions with a final answer are read from, and how they are put.

    Raises ValueError naming the field when a value is not allowed.
    """

    train_rows: str | None = None
    """Source (data/sources.py) of training rows; null where none are needed."""
    more_train_rows: tuple[str, ...] = ()
    """Further sources of training rows."""
    test_rows: str | None = None
    """Source (data/sources.py) of test rows; null where none are needed."""
    row_format: Literal["gsm8k", "math", "mixed"] = "gsm8k"
    """Columns of the rows: gsm8k, math, or mixed (rows with a `solution` are MATH's)."""
    prompt: str = "question"
    """Style in which a question is put; one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template the prompts get; null: none."""
    calculator_marks: Literal["removed", "kept"] = "removed"
    """Marks like <<3*4=12>> in demonstrations: removed or kept."""
    answer_mark: Literal["hash", "boxed"] = "hash"
    """How a demonstration ends: hash (`#### 72`) or boxed."""

    def __post_init__(self) -> None:
        allowed = (
            ("row_format", self.row_format, tuple(ROW_FORMATS)),
            ("prompt", self.prompt, tuple(PROMPTS)),
            ("calculator_marks", self.calculator_marks, ("removed", "kept")),
            ("answer_mark", self.answer_mark, ("hash", "boxed")),
        )
        for name, value, choices in allowed:
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True)
class MathTask:
    """Implements `data.tasks.base.Task`."""

    config: MathConfig
    name: str = "math"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        make = ROW_FORMATS[self.config.row_format]
        return splits_of_sources(
            lambda row, identifier: make(row, identifier, self.config),
            (self.config.train_rows, *self.config.more_train_rows),
            self.config.test_rows,
            seed,
            demonstrations=demonstrations,
            train=train,
            validation=validation,
            test=test,
        )

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        raise ValueError(f"problem {problem.id}: solutions come from the rows alone")


def gsm8k_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """Raises ValueError, the reason alone, for a row without question, steps or final answer."""
    question, worked = row.text("question"), row.text("answer")
    steps, mark, answer = worked.rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        raise ValueError("answer has no final answer: its last line must be '#### ...'")
    if config.calculator_marks == "removed":
        steps = CALCULATOR_MARK.sub("", steps)
    return _demonstration(question, steps, answer.strip(), identifier, config)


def math_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """Raises ValueError, the reason alone, for a row without problem, solution or answer, and for
    one whose solution boxes another answer than `answer` holds."""
    question, solution = row.text("problem", "question"), row.text("solution")
    answer = row.text("answer") if row.columns.get("answer") is not None else None
    boxed = last_boxes(solution)
    if answer and boxed is not None and not _holds(boxed, answer):
        raise ValueError(f"answer is {answer[:80]!r}, but the solution's box holds {boxed[:80]!r}")
    answer = answer or boxed
    if not answer or not answer.strip():
        raise ValueError("solution has no final answer: no \\boxed{...}, and answer is absent")
    steps = SENTENCE_END.sub("\n", solution)
    return _demonstration(question, steps, answer.strip(), identifier, config)


def mixed_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """A row of either format. Raises what that one's reader does."""
    make = math_row if row.columns.get("solution") is not None else gsm8k_row
    return make(row, identifier, config)


ROW_FORMATS = {"gsm8k": gsm8k_row, "math": math_row, "mixed": mixed_row}


def _holds(boxed: str, answer: str) -> bool:
    """Whether the boxes hold the answer; several boxes may each hold it, in other spellings."""
    parts = boxed.split(", ")
    return same_spelling(boxed, answer) or all(same_spelling(part, answer) for part in parts)


def _demonstration(
    question: str, steps: str, answer: str, identifier: str, config: MathConfig
) -> Demonstration:
    lines = [line.strip() for line in steps.splitlines() if line.strip()]
    if not lines:
        raise ValueError("the solution has no step before its final answer")
    if config.answer_mark == "hash":
        last = f"#### {answer}"
    else:
        last = f"The answer is \\boxed{{{answer}}}."
    return Demonstration(
        problem=Problem(
            id=identifier,
            prompt=render(question, config.prompt, config.chat_model),
            answer=answer,
            group=group_of(question),
        ),
        solution="\n".join([*lines, last]),
    )
