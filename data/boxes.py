"""Read the boxes `\\boxed{...}` that hold a text's answer: braces matched, in linear time."""

from __future__ import annotations

import re

BOX_STARTS = ("\\boxed", "\\fbox")
MAX_BOX_CHARACTERS = 4000
MAX_JOINED_BOXES = 16
MAX_JOINER_CHARACTERS = 200
WORD = re.compile(r"[^\s$]{1,50}")
UPRIGHT = re.compile(r"\\(?:text[a-z]*|mbox|mathrm|mathbf)\s?\{([^{}]*)\}")
# Between two answers these add the second one to the first, or offer it in its place.
JOINING = frozenset((
    "or", "and", "else", "also", "either", "alternatively", "as", "well", "respectively",
    "plus", "another", "other", "one", "possible", "possibly", "maybe", "perhaps", "otherwise",
    "case", "option", "answer", "answers", "solution", "solutions", "root", "value", "is",
    "are", "the", "could", "can", "be", "may", "might", "it", "another", "with", "too", "both",
))  # fmt: skip
OFFERING = frozenset(("or", "alternatively", "maybe", "perhaps", "possibly", "otherwise", "either"))
CONDITIONS = frozenset(("if", "for", "when", "where", "in"))
MAX_OFFER_CHARACTERS = 80
# The second answer comes out of the first one, or in its place.
PROGRESS = frozenset((
    "then", "so", "no", "not", "thus", "hence", "therefore", "now", "wait", "actually", "finally",
    "next", "which", "gives", "becomes", "first", "since", "because", "correction", "final",
    "step", "check", "sorry", "instead", "times", "plus", "minus", "get", "gets", "find", "finds",
    "equals", "yields", "means", "have", "implies", "giving", "total", "sum", "product", "divided",
    "multiplied", "but", "yet", "there", "making", "makes", "leaves", "leaving", "after",
))  # fmt: skip
MAX_SHORT_CHARACTERS = 24
SENTENCE_END = re.compile(r"[.?!]\s|\n\s*[A-Z]")
REFERS_BACK = re.compile(r"(?:see |as |same as )?(?:above|before|earlier)")


class BadBox(ValueError):
    """A box that is cut off or too long; the message says which."""


def last_boxes(text: str) -> tuple[str, ...]:
    """What the last box holds, and the boxes before it that are joined to it (`joins`), in their
    order; empty where there is no box. A last box that says "above" is none. Raises BadBox."""
    contents: list[str] = []
    end, following = len(text), -1
    for _ in range(MAX_JOINED_BOXES):
        start, name = max((text.rfind(name, 0, end), name) for name in BOX_STARTS)
        if start < 0:
            break
        content, after = box_at(text, start + len(name))
        if contents and (after > following or not joins(text[after:following])):
            break
        if contents or not REFERS_BACK.fullmatch(UPRIGHT.sub(r"\1", content).strip(" .").lower()):
            contents.append(content)
            following = start
        end = start
    return tuple(reversed(contents))


def joins(between: str) -> bool:
    """Whether the text between two answers makes them one list: it has no words but "or", "and",
    "another answer is" and their kind; or it is short, ends no sentence and tells of no progress
    ("then", "so", "no"); or it offers the second answer in the same sentence, or for another case.
    """
    if len(between) > MAX_JOINER_CHARACTERS:
        return False
    plain = UPRIGHT.sub(r" \1 ", between)
    plain = re.sub(r"\\(?:lor|vee|land|wedge)(?![A-Za-z])", " or ", plain)
    written = re.sub(r"\\[A-Za-z]+\*?|\\.", " ", plain)
    plain = written.lower()
    words = [word for word in re.findall(r"[^\W\d_]+", plain) if len(word) > 1]
    if all(word in JOINING for word in words):
        return True
    if len(words) <= 2 and len(between) <= MAX_SHORT_CHARACTERS and not PROGRESS & set(words):
        return True  # "vs", or "or" in another language
    if len(between) > MAX_OFFER_CHARACTERS:
        return False
    if not SENTENCE_END.search(written) and not PROGRESS & set(words):
        return True  # "if n is even, and"
    *before, last = re.split(r"[.?!]\s", plain)
    found = re.findall(r"[^\W\d_]+", last)
    if found[:1] and found[0] in CONDITIONS and not PROGRESS & set(words):
        return True  # "If n is odd:"
    return any(word in OFFERING for word in (found[:1] if before else found))


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
