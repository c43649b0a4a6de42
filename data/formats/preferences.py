"""Preference rows of TRL's dataset type "preference", as text or as conversations, with an explicit
or an implicit prompt.

- Text: the columns are `prompt`, `chosen` and `rejected`. With an implicit prompt there is no
  `prompt`, and both `chosen` and `rejected` begin with the prompt.
- Conversations: the columns hold lists of messages. Each message has a `role` and a `content` of
  text. `chosen` and `rejected` end with the assistant's turn. `prompt` may be text while the others
  are conversations (UltraFeedback is published like this). It must then be the first user's turn of
  both, and it adds nothing.

`margin` is a number of 0 or more, as in TRL. Other columns are ignored, except columns that would
change the model's input: rows with tools, images or template arguments are refused.
"""

from __future__ import annotations

import math

from data.formats.base import as_list, as_mapping, as_text, shown
from data.sources import Row
from data.types import Message, Preference

NOT_READ = ("tools", "images", "image", "chat_template_kwargs")
Turns = tuple[Message, ...]


def preference_row(row: Row) -> Preference:
    """The preference of a row. Raises ValueError with the reason, without the place."""
    columns = row.columns
    for name in NOT_READ:
        if columns.get(name):
            raise ValueError(f"{name} is given; rows with {name} cannot be used")
    prompt = columns.get("prompt")
    if isinstance(columns.get("chosen"), list) or isinstance(columns.get("rejected"), list):
        chosen, rejected = (_conversation(columns, prompt, name) for name in ("chosen", "rejected"))
    else:
        chosen, rejected = (as_text(columns.get(name), name) for name in ("chosen", "rejected"))
        if prompt is not None:
            begin = as_text(prompt, "prompt")
            chosen, rejected = begin + chosen, begin + rejected
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same")
    return Preference(chosen=chosen, rejected=rejected, margin=_margin(columns.get("margin")))


def _conversation(columns: dict[str, object], prompt: object, name: str) -> Turns:
    """The whole conversation in the column `name`, with the prompt before it when the prompt is a
    conversation. Raises ValueError when it is not a valid conversation."""
    said = _messages(columns.get(name), name)
    if said[-1].role != "assistant":
        raise ValueError(f"{name} ends with the turn of {shown(said[-1].role)}, not the assistant")
    if isinstance(prompt, list):
        return (*_messages(columns["prompt"], "prompt"), *said)
    first = next((turn.content for turn in said if turn.role == "user"), None)
    if first is None:
        raise ValueError(f"{name} has no user's turn, and prompt holds no conversation")
    if prompt is not None and as_text(prompt, "prompt").strip() != first.strip():
        raise ValueError(f"prompt is not the first user's turn of {name}")
    return said


def _messages(value: object, name: str) -> Turns:
    turns: list[Message] = []
    for number, item in enumerate(as_list(value, name), start=1):
        where = f"turn {number} of {name}"
        columns = as_mapping(item, where)
        turns.append(
            Message(
                role=as_text(columns.get("role"), f"the role of {where}"),
                content=as_text(columns.get("content"), f"the content of {where}", blank=True),
            )
        )
    if not turns:
        raise ValueError(f"{name} is empty; there must be a turn")
    return tuple(turns)


def _margin(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"margin is {shown(value)}; it must be a number of 0 or more")
    return float(value)
