"""Equations and inequalities as answers, and the intervals that inequalities describe."""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.mathematics.answers import Unreadable
from rewards.mathematics.structure import (
    INEQUALITY,
    NAME,
    RELATION,
    Answer,
    Kind,
    without_braces,
)

NOT_EQUAL = re.compile(r"\\(?:neq?|not ?=)(?![A-Za-z])")
# What stands in numbers: no variable of an inequality.
NUMBER_NAMES = ("\\infty", "\\frac", "\\sqrt", "\\pi", "\\cdot", "\\times", "e")


def as_relations(gold: Answer, answer: Answer) -> tuple[Answer, Answer] | None:
    """Both, to be compared part by part, where one is a union of intervals and the other one the
    inequalities that describe it: (-\\infty, 1) \\cup (2, \\infty) and x < 1 or x > 2. Raises
    `Unreadable` for an interval beside inequalities joined by anything else than "or", or of
    several variables."""
    sides = (_as_two(gold), _as_two(answer))
    listed = next((side for side in sides if side.kind is Kind.LIST), None)
    if listed is None or not any(side.kind in (Kind.UNION, Kind.TUPLE) for side in sides):
        return None
    if not all(INEQUALITY.search(item.text) or item.name for item in listed.items):
        return None
    if not any(item.kind is Kind.EQUATION for item in listed.items):
        return None
    variables = {item.name or _variable(item.text) for item in listed.items}
    if listed.brackets != "or" or len(variables) != 1:
        raise Unreadable("joins relations in a way that is not read as a union of intervals")
    first, second = (
        replace(side, items=tuple(without_braces(item) for item in side.items)) for side in sides
    )
    return (first, second) if any(side.kind is Kind.UNION for side in sides) else None


def _as_two(answer: Answer) -> Answer:
    """x \\ne 1 is x < 1 or x > 1."""
    parts = NOT_EQUAL.split(answer.text)
    if answer.kind is not Kind.EQUATION or len(parts) != 2 or not NAME.fullmatch(parts[0].strip()):
        return answer
    if RELATION.search(parts[1]):
        return answer
    items = tuple(
        Answer(kind=Kind.EQUATION, text=f"{parts[0].strip()} {sign} {parts[1].strip()}")
        for sign in "<>"
    )
    return Answer(kind=Kind.LIST, text=answer.text, items=items, brackets="or")


def _variable(inequality: str) -> str:
    """Its letters and Greek letters, apart from those of numbers."""
    found = re.findall(r"\\?[A-Za-z]+", re.sub(r"\\(?:le|ge|lt|gt)(?![A-Za-z])", " ", inequality))
    return " ".join(sorted({name for name in found if name not in NUMBER_NAMES}))


def signs_of_relation(text: str) -> list[str]:
    """The signs of relation that algebra takes for equality, or leaves out."""
    text = re.sub(r"\\neq(?![A-Za-z])", r"\\ne", text)
    signs = r"\\(approx|equiv|simeq|sim|cong|propto|ne|notin|not|in)(?![A-Za-z])"
    return sorted(re.findall(signs, text))


def with_name(answer: Answer) -> str:
    if not answer.name or answer.kind is Kind.EQUATION:
        return answer.text
    return f"{answer.name} = {answer.text}"


def both_equations(gold: Answer, answer: Answer) -> bool:
    """One of them happens to begin with a name: y = 2x + 3 and 2x - y + 3 = 0."""
    sides = (gold, answer)
    return all(side.kind is Kind.EQUATION or side.name for side in sides) and (
        Kind.EQUATION in (gold.kind, answer.kind)
    )


def set_and_inequality(gold: Answer, answer: Answer) -> bool:
    """1 < x < 2 and (1, 2)."""
    kinds = {gold.kind, answer.kind}
    texts = [side.text for side in (gold, answer) if side.kind is Kind.EQUATION]
    if Kind.EQUATION not in kinds or not all(INEQUALITY.search(text) for text in texts):
        return False
    return kinds <= {Kind.EQUATION, Kind.TUPLE, Kind.UNION}
