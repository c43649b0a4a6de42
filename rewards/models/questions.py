"""The question that a language model is asked about the steps of a solution so far."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from data.types import SteppedSolution
from rewards.models.rendering import chat, without_special_tokens

QUESTION = (
    "Problem:\n{problem}\n\nThe beginning of a solution:\n{steps}\n\n"
    "Is every step of it correct so far? Answer with one word, yes or no."
)
ANSWER = "Answer:"
FIELDS = ("{problem}", "{steps}")


def check_question(question: str) -> None:
    """Raises ValueError for a question that lacks {problem} or {steps}."""
    for field in FIELDS:
        if field not in question:
            raise ValueError(f"question is {question!r}; it must hold {field}")


def filled_question(question: str, solution: SteppedSolution, step: int) -> str:
    """The question about steps 0..step. Text of the solution that looks like a field is not
    replaced."""
    steps = [text.strip("\n") for text in solution.steps[: step + 1]]
    texts = {"{problem}": solution.prompt.strip(), "{steps}": "\n".join(steps)}
    return re.sub("{problem}|{steps}", lambda field: texts[field[0]], question)


def asker(tokenizer: Any, question: str) -> Callable[[SteppedSolution, int], tuple[int, ...]]:
    """A function that makes the token ids of the question about steps 0..step of a solution.

    The question is a user's turn when the tokenizer has a chat template, else text that ends with
    "Answer:". Raises ValueError for a question that lacks {problem} or {steps}.
    """
    check_question(question)
    clean = without_special_tokens(tokenizer)

    def ask(solution: SteppedSolution, step: int) -> tuple[int, ...]:
        text = clean(filled_question(question, solution, step))
        if tokenizer.chat_template is None:
            return tuple(tokenizer.encode(f"{text}\n{ANSWER}"))
        asked = chat(tokenizer, [("user", text)], answer_next=True)
        return tuple(tokenizer.encode(asked, add_special_tokens=False))

    return ask


def answer_token(tokenizer: Any, word: str) -> int:
    """The first token of the answer `word`.

    The answer follows "Answer:" and a space, or it begins a turn of a chat. Raises ValueError for
    an empty word, and when the tokenizer merges the answer with the text before it.
    """
    before: list[int] = []
    text = word
    if tokenizer.chat_template is None:
        before = tokenizer.encode(ANSWER, add_special_tokens=False)
        text = f"{ANSWER} {word}"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not word.strip() or ids[: len(before)] != before or len(ids) == len(before):
        raise ValueError(f"the answer {word!r} has no separate token after {ANSWER!r}")
    return ids[len(before)]
