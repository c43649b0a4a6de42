"""Equations and inequalities as answers, and the intervals that inequalities describe."""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.mathematics.answers import Unreadable
from rewards.mathematics.structure import (
    INEQUALITY,
    NAME,
    RELATION,
    SET,
    Answer,
    Kind,
    read_part,
    split_top,
    without_braces,
)

NOT_EQUAL = re.compile(r"\\ne(?![A-Za-z])")
# What stands in numbers: no variable of an inequality.
NUMBER_NAMES = ("\\infty", "\\frac", "\\sqrt", "\\pi", "\\cdot", "\\times", "e")
# What is called by its letters: |AB|, m\\angle A, f(1), P(A), (x, y), [ABC], a + b, xy.
CALL = re.compile(
    r"\|[A-Z]{1,3}\||(?:m ?)?\\(?:measured)?angle ?\{?[A-Z]{1,3}\}?"
    r"|\( ?[A-Za-z](?: ?, ?[A-Za-z])+ ?\)|(?:[A-Za-z]{1,2}|\\[A-Za-z]+) ?\([^()=<>]*\)"
    r"|\\(?:overline|vec|overrightarrow|hat|bar) ?\{[A-Z]+\}"
    r"|\[[A-Z]+\]|\|\\(?:vec|overline|overrightarrow) ?\{[A-Za-z]+\}\|"
    r"|\\frac ?\{ ?d ?[A-Za-z] ?\} ?\{ ?d ?[A-Za-z] ?\}"
    r"|[A-Za-z](?: ?(?:(?:[-+*/]|\\cdot) ?)?[A-Za-z])+"
)
JOINED = {"or": "any", "and": "all"}
CALL_MARKS = re.compile(r"\\(?:overline|left|right|text)(?![A-Za-z])|[|{} ]|^m(?=\\angle)")
SPEAKS_OF_INTERVALS = re.compile(
    r"interval|inequalit|domain|\brange\b|solution set|<|>|\\[lg]e(?![A-Za-z])|\\[lg]eq|\\[lg]t\b"
    r"|(?:values|numbers|set|all)(?: \w+){0,3} (?:of )?\$?[a-z]\$?(?![A-Za-z])"
    r"|increasing|decreasing",
    re.IGNORECASE,
)
SPEAKS_OF_PAIRS = re.compile(
    r"\bpoints?\b|coordinate|\bpairs?\b|vertex|vertices|midpoint|\bcent(?:er|re)\b|\(x, ?y\)"
    r"|\([a-zA-Z], ?[a-zA-Z]\)|intersect|vector|focus|\bsystem\b|tuple",
    re.IGNORECASE,
)


def called_values(gold: Answer, answer: Answer, question: str) -> tuple[Answer, Answer] | None:
    """Both without what they are called by, where one is "|AB| = 1" or "a + b = 7" and the other
    one a value without a name, or with the same one. The left side of an equation with no digits in
    it calls its value, and so does one that stands in the question. None where this does not apply.
    """
    found = [_called(side, question) for side in (gold, answer)]
    if found == [None, None]:
        return None
    names = [
        call[0] if call else _plain_name(side.name)
        for call, side in zip(found, (gold, answer), strict=True)
    ]
    values = [
        call[1] if call else replace(side, name="")
        for call, side in zip(found, (gold, answer), strict=True)
    ]
    if any(value.kind is Kind.EQUATION for value in values):
        return None
    if names[0] and names[1] and names[0] != names[1]:
        return None
    return values[0], values[1]


def _called(answer: Answer, question: str) -> tuple[str, Answer] | None:
    """(name, value) of an equation."""
    if answer.kind is not Kind.EQUATION or answer.bound:
        return None
    parts = [part.strip() for part in split_top(answer.text, ("=",))]
    if len(parts) != 2 or RELATION.search(parts[1]) or RELATION.search(parts[0]):
        return None
    name = _plain_name(parts[0])
    asked = len(name) > 1 and re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", name)) is not None
    if not CALL.fullmatch(parts[0]) and not (asked and name in _plain_name(question)):
        return None
    return name, read_part(parts[1])


def _plain_name(name: str) -> str:
    return CALL_MARKS.sub("", name.replace(" ", ""))


def left_out_points(gold: Answer, answer: Answer) -> tuple[Answer, Answer] | None:
    """Both as lists of the points that they leave out, where one is x \\ne 1, or all real numbers
    except 1, and the other one too, or the union of intervals around the points."""
    sides = [_left_out(side) for side in (gold, answer)]
    if not any(side is not None and side[0] for side in sides):
        return None
    if sides[0] is None or sides[1] is None:
        return None
    names = [answer_name for _, answer_name, _ in (sides[0], sides[1]) if answer_name]
    if len(set(names)) > 1:
        return None
    first, second = (
        Answer(kind=Kind.LIST, text=", ".join(item.text for item in items), items=items)
        for _, _, items in (sides[0], sides[1])
    )
    return first, second


def _left_out(answer: Answer) -> tuple[bool, str, tuple[Answer, ...]] | None:
    """Whether it says so itself, its letter, and the points."""
    if answer.kind is Kind.EXCEPT:
        return True, answer.name, answer.items
    if answer.kind is Kind.UNION:
        return _gaps(answer)
    items = answer.items if answer.kind is Kind.LIST else (answer,)
    if answer.kind not in (Kind.LIST, Kind.EQUATION) or "or" in answer.brackets.split():
        return None
    parts = [NOT_EQUAL.split(item.text) for item in items if item.kind is Kind.EQUATION]
    if not parts or items[0].kind is not Kind.EQUATION:
        return None
    if any(len(part) != 2 or RELATION.search(part[0] + part[1]) for part in parts):
        return None
    names = {part[0].strip() for part in parts}
    if len(names) != 1 or not all(NAME.fullmatch(name) for name in names):
        return None
    points = [
        read_part(NOT_EQUAL.split(item.text)[1].strip()) if item.kind is Kind.EQUATION else item
        for item in items
    ]
    if any(point.kind is not Kind.SCALAR for point in points):
        return None
    return True, names.pop(), tuple(points)


def _gaps(union: Answer) -> tuple[bool, str, tuple[Answer, ...]] | None:
    if any(item.kind is not Kind.TUPLE or item.brackets != "()" for item in union.items):
        return None
    if any(len(item.items) != 2 for item in union.items):
        return None
    lefts = [item.items[0] for item in union.items]
    rights = [item.items[1] for item in union.items]
    plain = [[end.text.replace(" ", "").lstrip("+") for end in ends] for ends in (lefts, rights)]
    if "-\\infty" not in plain[0] or "\\infty" not in plain[1]:
        return None
    points = sorted(set(plain[0]) - {"-\\infty"}), sorted(set(plain[1]) - {"\\infty"})
    if points[0] != points[1] or len(points[0]) != len(union.items) - 1:
        return None
    return (
        False,
        union.name,
        tuple(end for end, text in zip(lefts, plain[0], strict=True) if text != "-\\infty"),
    )


def pieces_of(answer: Answer, question: str, *, is_gold: bool) -> list[list[str]]:
    """An interval or a union as what the worker reads (`rewards.mathematics.worker`). A gold answer
    in round brackets is an interval only where an end is infinite or the question speaks of
    intervals and of no point; an answer is one where the question speaks of no point. Raises
    `NotAnInterval` where it is a pair, `Unreadable` where it may be one."""
    parts = answer.items if answer.kind is Kind.UNION else (answer,)
    found: list[list[str]] = []
    for part in parts:
        texts = [item.text for item in part.items]
        if part.kind is Kind.LIST and part.brackets == SET:
            found.append(["{", *texts])
        elif part.kind is Kind.TUPLE and len(texts) == 2:
            if answer.kind is Kind.TUPLE and part.brackets == "()":
                _check_interval(texts, question, is_gold=is_gold)
            found.append([part.brackets[0], *texts, part.brackets[1]])
        elif part.kind is Kind.TUPLE:
            raise NotAnInterval
        else:
            raise Unreadable("has a union of what is no interval")
    return found


class NotAnInterval(Exception):
    """A point, or a list of more than two values."""


def _check_interval(ends: list[str], question: str, *, is_gold: bool) -> None:
    intervals = SPEAKS_OF_INTERVALS.search(question) is not None
    pairs = SPEAKS_OF_PAIRS.search(question) is not None
    if any("\\infty" in end for end in ends) or (intervals and not pairs):
        return
    if pairs and not intervals:
        raise NotAnInterval
    if not is_gold and not pairs:
        return
    raise Unreadable("is an inequality beside what may be a pair or an interval")


def in_one_letter(gold: Answer, answer: Answer) -> Answer:
    """The answer, a set {y : ...} where the gold answer is {x : ...}, in that one's letter."""
    if not (gold.bound and answer.bound) or gold.bound == answer.bound:
        return answer
    if re.search(rf"(?<![A-Za-z\\]){gold.bound}(?![A-Za-z])", answer.text):
        raise Unreadable("has sets in several letters")
    text = re.sub(
        rf"\\[A-Za-z]+|{answer.bound}",
        lambda match: gold.bound if match[0] == answer.bound else match[0],
        answer.text,
    )
    return replace(read_part(text), bound=gold.bound)


def as_relations(gold: Answer, answer: Answer) -> tuple[Answer, Answer] | None:
    """Both, to be compared part by part, where one is a union of intervals and the other one the
    inequalities that describe it: (-\\infty, 1) \\cup (2, \\infty) and x < 1 or x > 2. Raises
    `Unreadable` for an interval beside inequalities of several variables."""
    sides = (_as_two(gold), _as_two(answer))
    listed = next((side for side in sides if side.kind is Kind.LIST), None)
    if listed is None or not any(side.kind in (Kind.UNION, Kind.TUPLE) for side in sides):
        return None
    if not all(INEQUALITY.search(item.text) or item.name for item in listed.items):
        return None
    if not any(item.kind is Kind.EQUATION for item in listed.items):
        return None
    variables = {item.name or _variable(item.text) for item in listed.items}
    if len(variables) != 1:
        raise Unreadable("joins relations of several letters")
    if listed.brackets != "or":
        return None
    first, second = (
        replace(side, items=tuple(_as_interval(without_braces(item)) for item in side.items))
        for side in sides
    )
    return (first, second) if any(side.kind is Kind.UNION for side in sides) else None


def joined_relations(gold: Answer, answer: Answer) -> bool:
    """Whether one side is relations joined by "or" or "and", and the other one a relation, an
    interval or a union: x < -2 or x > 2 beside |x| > 2."""
    joined = [
        side.kind is Kind.LIST
        and side.brackets in JOINED
        and all(item.kind is Kind.EQUATION or item.name for item in side.items)
        for side in (gold, answer)
    ]
    others = {Kind.EQUATION, Kind.TUPLE, Kind.UNION}
    return joined.count(True) == 1 and (answer if joined[0] else gold).kind in others


def as_joined(answer: Answer) -> dict[str, list[str]]:
    """What the worker reads (`rewards.mathematics.worker`)."""
    return {JOINED[answer.brackets]: [with_name(item) for item in answer.items]}


def _as_interval(part: Answer) -> Answer:
    """A union's part, which is an interval and no pair, as a union of one part."""
    if part.kind is not Kind.TUPLE:
        return part
    return Answer(kind=Kind.UNION, text=part.text, items=(part,))


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
