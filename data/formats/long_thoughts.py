"""Rows with long thoughts, in the forms in which they are published.

- Text: a question, and a solution that holds `<think>...</think>` and then the answer.
- Two columns: a question, the thought under `reasoning_content` (as OpenAI-compatible servers give
  it; also `reasoning` or `thinking`), and the answer part under `content`, `response`, `solution`,
  `completion` or `generation`.
- Conversations, as TRL reads them: `messages`, or `prompt` and `completion` as lists of turns. The
  last turn is the assistant's. Its content is a text of the first form, or it has a
  `reasoning_content` of its own. Earlier turns must be one user's turn, perhaps after a system
  turn, which is left out.

The gold answer is the column `answer`, or else the last box of the answer part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data.boxes import last_boxes
from data.formats.base import as_answer, as_list, as_mapping, as_text, shown
from data.sources import Row
from data.thoughts import THOUGHT_END, THOUGHT_START, split_solution, with_thought

QUESTIONS = ("question", "problem", "prompt")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
ANSWERS = ("content", "response", "solution", "completion", "generation")


@dataclass(frozen=True, kw_only=True)
class LongThought:
    """A question, a thought, the answer part after it, and the gold answer ("" where there is
    none). The thought and the answer part are without tags."""

    question: str
    thought: str
    answer: str
    gold: str

    def solution(self, prompt: str) -> str:
        """The solution after a prompt. A prompt that ends with `<think>` opens the thought, so the
        solution does not."""
        whole = with_thought(self.thought, self.answer)
        opened = prompt.rstrip().endswith(THOUGHT_START)
        return whole.removeprefix(THOUGHT_START).removeprefix("\n") if opened else whole


def long_thought_row(row: Row) -> LongThought:
    """The thought of a row. Raises ValueError with the reason, without the place, for a row in none
    of the forms, with an empty part, or without a closed thought."""
    columns = row.columns
    if columns.get("messages") is not None:
        question, said = _conversation(as_list(columns["messages"], "messages"), "messages")
    elif isinstance(columns.get("completion"), list):
        turns = as_list(columns.get("prompt"), "prompt")
        question, said = _conversation([*turns, *columns["completion"]], "prompt and completion")
    else:
        question, said = as_text(_first(columns, QUESTIONS), " or ".join(QUESTIONS)), columns
    thought, answer = thought_and_answer(said)
    gold = as_answer(columns.get("answer"), "answer") or ", ".join(last_boxes(answer))
    return LongThought(question=question, thought=thought, answer=answer, gold=gold.strip())


def _conversation(turns: list[object], name: str) -> tuple[str, Mapping[str, object]]:
    """The question of a conversation, and the assistant's turn."""
    read = [as_mapping(turn, f"turn {n} of {name}") for n, turn in enumerate(turns, start=1)]
    roles = [as_text(t.get("role"), f"the role of turn {n}") for n, t in enumerate(read, start=1)]
    if roles[-2:] != ["user", "assistant"] or roles[:-2] not in ([], ["system"]):
        raise ValueError(
            f"{name} has the turns {shown(', '.join(roles))}; they must be user and assistant, "
            "perhaps after system"
        )
    return as_text(read[-2].get("content"), "the user's content"), read[-1]


def thought_and_answer(columns: Mapping[str, object]) -> tuple[str, str]:
    """The thought and the answer part of the columns of a row or of an assistant's turn, without
    tags. Raises ValueError when there is no closed thought, and when a part is empty."""
    text = as_text(_first(columns, ANSWERS), " or ".join(ANSWERS), blank=True)
    thought = _first(columns, THOUGHTS)
    if thought is not None:
        if THOUGHT_END in text:
            raise ValueError(f"there are two thoughts: in a column and before {THOUGHT_END}")
        said, answer = as_text(thought, "the thought", blank=True), text
    else:
        parts = split_solution(text)
        if parts.thought is None:
            names = ", ".join(THOUGHTS)
            raise ValueError(f"there is no thought: no {THOUGHT_END}, and none of {names}")
        if parts.answer is None:
            raise ValueError(f"the thought has no end: {THOUGHT_END} is absent")
        said, answer = parts.thought, parts.answer
    said, answer = said.strip(), answer.strip()
    if not said or not answer:
        raise ValueError(f"the {'answer part' if said else 'thought'} is empty")
    return said, answer


def _first(columns: Mapping[str, object], names: tuple[str, ...]) -> object:
    return next((columns[name] for name in names if columns.get(name) is not None), None)
