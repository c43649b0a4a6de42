"""A problem that the user typed, as a problem of a task: its prompt and its gold answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data.prompts import PROMPTS, chat_prompt
from data.tasks.countdown import make_problem, parse_prompt
from data.types import Problem

PLACE = "{problem}"


@dataclass(frozen=True, kw_only=True)
class TypedTask:
    """How a typed problem of a task is asked and checked. `from_text` makes the problem of a text
    that holds its own gold answer; None: the gold answer is given apart."""

    verifier: str
    template: str
    from_text: Callable[[str], Problem] | None = None


def _countdown(text: str) -> Problem:
    parsed = parse_prompt(text.strip() + "\n")
    if parsed is None:
        raise ValueError(f"problem is {text!r}; a Countdown problem looks like 3 4 7 12 -> 24")
    return make_problem(*parsed)


TYPED_TASKS: dict[str, TypedTask] = {
    "math": TypedTask(verifier="math", template=PROMPTS["boxed"].replace("{question}", PLACE)),
    "countdown": TypedTask(verifier="countdown", template=f"{PLACE}\n", from_text=_countdown),
}


def typed_problem(
    text: str,
    *,
    task: str | None,
    template: str | None,
    answer: str | None,
    chat: bool | None,
    thinking: bool | None,
    tokenizer: Any,
) -> Problem:
    """The problem of a text. `chat` None: in the chat template where the tokenizer has one.

    Raises ValueError for a text that is no problem of the task, for `chat` without a template, and
    for a chat template that raises.
    """
    entry = None if task is None else TYPED_TASKS[task]
    style = template or (entry.template if entry else f"{PLACE}\n")
    prompt = style.replace(PLACE, text)
    has_template = getattr(tokenizer, "chat_template", None) is not None
    if has_template if chat is None else chat:
        prompt = chat_prompt(tokenizer, prompt.strip(), thinking=thinking)
    known = entry.from_text(text) if entry and entry.from_text else None
    return Problem(
        id="problem",
        prompt=prompt,
        answer=answer or (known.answer if known else ""),
        numbers=known.numbers if known else (),
    )
