"""Templates of word problems: a text with places for numbers and words, and the steps to the
answer.

A template is a block of lines:

    pens_and_card | shopping | a 2-9, b 2-9, c 2-30
    {person} buys {a} pens for {b} dollars each and a card for {c} dollars.
    How many dollars does {person} spend?
    x = a * b | The pens cost {x} dollars.
    y = x + c | Together that is {y} dollars.

The first line has the name, the family and the range of each number. The lines up to the first
step are the question. A step is one operation on two earlier numbers, and a sentence: in it, `{x}`
stands for the operation and its result, such as "3 * 4 = 12". The result of the last step is the
answer.
`{person}`, `{other}` and `{third}` are three people, `{things}` and `{more}` two kinds of things.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from data.tasks.countdown import apply

NUMBER = re.compile(r"(?P<name>[a-d]) (?P<low>[0-9]+)-(?P<high>[0-9]+)")
OPERAND = r"[a-z]|[0-9]+"
STEP = re.compile(
    rf"(?P<name>[x-z]) = (?P<left>{OPERAND}) (?P<operator>[-+*/]) (?P<right>{OPERAND})"
    r" \| (?P<text>.+)"
)
PEOPLE = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Kate",
    "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor",
)  # fmt: skip
THINGS = (
    "apples", "pears", "lemons", "plums", "pencils", "stickers", "marbles", "buttons", "stamps",
    "candles", "balloons", "ribbons", "shells", "cookies", "muffins", "postcards",
)  # fmt: skip
MAX_DRAWS = 2000  # of numbers that have to fit a template's steps


@dataclass(frozen=True, kw_only=True)
class WordStep:
    """`name` = `left` `operator` `right`. An operand is the name of a number or a number."""

    name: str
    left: str
    operator: str
    right: str
    text: str


@dataclass(frozen=True, kw_only=True)
class WordTemplate:
    """`ranges` holds the name, the smallest and the largest value of each number of the
    question."""

    name: str
    family: str
    ranges: tuple[tuple[str, int, int], ...]
    question: str
    steps: tuple[WordStep, ...]


@dataclass(frozen=True, kw_only=True)
class WordProblem:
    """A template with its places filled. `solution` has one step per line, without the line of the
    answer. `numbers` are those of the question, in the order of the template."""

    question: str
    solution: str
    answer: int
    numbers: tuple[int, ...]


def parse_templates(text: str) -> tuple[WordTemplate, ...]:
    """The templates in blocks that are separated by blank lines. Raises ValueError for a block of
    another form, with its first line."""
    return tuple(_parse(block.splitlines()) for block in re.split(r"\n\s*\n", text.strip()))


def _parse(lines: list[str]) -> WordTemplate:
    head = lines[0].split(" | ")
    steps = [WordStep(**found.groupdict()) for line in lines if (found := STEP.fullmatch(line))]
    question = lines[1 : len(lines) - len(steps)]
    ranges = [NUMBER.fullmatch(part) for part in head[-1].split(", ")]
    if len(head) != 3 or None in ranges or not steps or not question:
        raise ValueError(f"{lines[0]!r} does not begin a template: name | family | numbers")
    return WordTemplate(
        name=head[0],
        family=head[1],
        ranges=tuple((r["name"], int(r["low"]), int(r["high"])) for r in ranges if r is not None),
        question=" ".join(question),
        steps=tuple(steps),
    )


def fill_in(template: WordTemplate, rng: random.Random, max_value: int) -> WordProblem:
    """Draw words and numbers. Every number and every result is a whole number from 1 to
    `max_value`. Raises ValueError when `MAX_DRAWS` draws have not found such numbers."""
    words = dict(zip(("person", "other", "third"), rng.sample(PEOPLE, 3), strict=True))
    words |= dict(zip(("things", "more"), rng.sample(THINGS, 2), strict=True))
    for _ in range(MAX_DRAWS):
        drawn = {name: rng.randint(low, high) for name, low, high in template.ranges}
        values = _values(template, drawn, max_value)
        if values is not None:
            break
    else:
        raise ValueError(
            f"max_value is {max_value}: the template {template.name!r} has no numbers for it; "
            "allow a larger max_value"
        )
    places = words | {name: str(number) for name, number in drawn.items()}
    lines: list[str] = []
    for step in template.steps:
        left, right = (str(_value(operand, values)) for operand in (step.left, step.right))
        work = f"{left} {step.operator} {right} = {values[step.name]}"
        lines.append(step.text.format(**places, **{step.name: work}))
    return WordProblem(
        question=template.question.format(**places),
        solution="\n".join(lines),
        answer=values[template.steps[-1].name],
        numbers=tuple(drawn.values()),
    )


def _values(
    template: WordTemplate, drawn: Mapping[str, int], max_value: int
) -> dict[str, int] | None:
    """The drawn numbers and the results of all steps; None where one of them is not allowed."""
    values = dict(drawn)
    for step in template.steps:
        result = apply(_value(step.left, values), step.operator, _value(step.right, values))
        if result is None:
            return None
        values[step.name] = result
    return values if max(values.values()) <= max_value else None


def _value(operand: str, values: Mapping[str, int]) -> int:
    return int(operand) if operand.isdigit() else values[operand]
