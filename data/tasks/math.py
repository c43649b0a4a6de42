"""Mathematics problems from rows in the format of GSM8K or MATH.

The columns of GSM8K (2110.14168) are `question` and `answer`. The answer has one worked step per
line, with calculator marks such as `<<48/2=24>>`, and a last line `#### 72`. The columns of MATH
(2103.03874) are `problem`, `solution` and `answer`. Without `answer`, the last box of the solution
is the answer.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from data.boxes import last_boxes
from data.formats.long_thoughts import long_thought_row
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
    """The sources of questions with a final answer, and the form of their prompts.

    Raises ValueError for a value that is not allowed. The message names the field.
    """

    train_rows: str | None = None
    """Source (data/sources.py) of training rows; null: no training rows."""
    more_train_rows: tuple[str, ...] = ()
    """Further sources of training rows."""
    test_rows: str | None = None
    """Source (data/sources.py) of test rows; null: no test rows."""
    row_format: Literal["gsm8k", "math", "mixed", "thoughts"] = "gsm8k"
    """Rows: gsm8k, math, mixed (MATH's if they have a `solution`), thoughts (with <think>)."""
    prompt: str = "question"
    """Style of the prompt, one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template is applied to the prompts; null: no chat template."""
    thinking: bool | None = None
    """enable_thinking of the chat template, as in Qwen3; null: the template's own choice."""
    calculator_marks: Literal["removed", "kept"] = "removed"
    """Marks like <<3*4=12>> in demonstrations: removed or kept."""
    answer_mark: Literal["hash", "boxed"] = "hash"
    """End of a demonstration: hash (`#### 72`) or boxed (the answer in a box)."""

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
        raise ValueError(f"problem {problem.id}: this task has only the solutions in its rows")


def gsm8k_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """The demonstration in a row of GSM8K's format. Raises ValueError for a row without question,
    steps or final answer, with the reason, without the place."""
    question, worked = row.text("question"), row.text("answer")
    steps, mark, answer = worked.rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        raise ValueError("answer has no final answer: its last line must be '#### ...'")
    if config.calculator_marks == "removed":
        steps = CALCULATOR_MARK.sub("", steps)
    return _demonstration(question, steps, answer.strip(), identifier, config)


def math_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """The demonstration in a row of MATH's format.

    Raises ValueError for a row without problem, solution or answer, and for a row whose `answer`
    differs from the boxed answer in its solution. The message is the reason, without the place.
    """
    question, solution = row.text("problem", "question"), row.text("solution")
    answer = row.answer()
    boxed = last_boxes(solution)
    shown = ", ".join(boxed)
    if answer and boxed and not _holds(boxed, answer):
        raise ValueError(f"answer is {answer[:80]!r}, but the solution's box holds {shown[:80]!r}")
    answer = answer or shown
    if not answer or not answer.strip():
        raise ValueError("solution has no final answer: no \\boxed{...}, and answer is absent")
    steps = SENTENCE_END.sub("\n", solution)
    return _demonstration(question, steps, answer.strip(), identifier, config)


def mixed_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """The demonstration in a row of either format. Raises ValueError as `math_row` and `gsm8k_row`
    do."""
    make = math_row if row.columns.get("solution") is not None else gsm8k_row
    return make(row, identifier, config)


def thoughts_row(row: Row, identifier: str, config: MathConfig) -> Demonstration:
    """The demonstration in a row with a long thought (data/formats/long_thoughts.py). The thought
    and the answer part stay as they are. Raises ValueError for a row that is not of these forms or
    has no gold answer, with the reason, without the place."""
    found = long_thought_row(row)
    if not found.gold:
        raise ValueError("there is no final answer: no \\boxed{...}, and answer is absent")
    prompt = render(found.question, config.prompt, config.chat_model, config.thinking)
    problem = Problem(
        id=identifier, prompt=prompt, answer=found.gold, group=group_of(found.question)
    )
    return Demonstration(problem=problem, solution=found.solution(prompt))


ROW_FORMATS = {
    "gsm8k": gsm8k_row,
    "math": math_row,
    "mixed": mixed_row,
    "thoughts": thoughts_row,
}


def _holds(boxes: tuple[str, ...], answer: str) -> bool:
    """Whether the boxes hold the answer; several boxes may each hold it, in other spellings."""
    whole = ", ".join(boxes)
    return same_spelling(whole, answer) or all(same_spelling(box, answer) for box in boxes)


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
            prompt=render(question, config.prompt, config.chat_model, config.thinking),
            answer=answer,
            group=group_of(question),
        ),
        solution="\n".join([*lines, last]),
    )
