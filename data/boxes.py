"""Read the last `\\boxed{...}` in a text, with matching braces, in linear time."""

from __future__ import annotations

import re

BOX_STARTS = ("\\boxed", "\\fbox")
MAX_BOX_CHARACTERS = 4000
MAX_JOINED_BOXES = 16
JOINER = re.compile(r"(?:[\s$,;]|\\[()\[\]]|\band\b|\bor\b|\\text\s?\{\s*(?:and|or)\s*\})*")
WORD = re.compile(r"[^\s$]{1,50}")


class BadBox(ValueError):
    """A box that is cut off or too long; the message says which."""


def last_boxes(text: str) -> str | None:
    """The content of the last box, or None when there is no box. Boxes that have only "," ";" "and"
    "or", spaces and dollar signs between them are joined by commas. Raises BadBox for a box that is
    cut off or too long."""
    contents: list[str] = []
    end, following = len(text), -1
    while len(contents) < MAX_JOINED_BOXES:
        start, name = max((text.rfind(name, 0, end), name) for name in BOX_STARTS)
        if start < 0:
            break
        content, after = box_at(text, start + len(name))
        if contents and (after > following or not JOINER.fullmatch(text[after:following])):
            break
        contents.append(content)
        end = following = start
    return ", ".join(reversed(contents)) if contents else None


def box_at(text: str, position: int) -> tuple[str, int]:
    """The content of the box whose name ends at `position`, and the position after the box. The
    content of `\\boxed 5`, without braces, is one word. Raises BadBox."""
    while position < len(text) and text[position] in " \t":
        position += 1
    if position >= len(text):
        raise BadBox("has a box that is cut off")
    if text[position] != "{":
        word = WORD.match(text, position)
        return (word[0], word.end()) if word else ("", position)
    depth = 0
    limit = min(len(text), position + MAX_BOX_CHARACTERS)
    i = position
    while i < limit:
        if text[i] == "\\":
            i += 1
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return text[position + 1 : i], i + 1
        i += 1
    reason = "is cut off" if limit == len(text) else f"is over {MAX_BOX_CHARACTERS} characters long"
    raise BadBox(f"has a box that {reason}")
