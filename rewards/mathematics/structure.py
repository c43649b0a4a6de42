"""An answer's structure: numbers, lists, tuples, intervals, unions, matrices, equations, words.

The structure is judged here, exactly; only what stands in its leaves is left to computer algebra.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from data.spelling import rational
from rewards.mathematics.answers import Unreadable, clean, without_delimiters
from rewards.mathematics.notations import (
    based_number,
    excepted_points,
    in_digits,
    set_builder,
    with_matrix_brackets,
)
from rewards.mathematics.units import (
    DEGREE,
    PERCENT,
    letter_taken_off,
    split_unit,
    with_plain_letters,
)

# Most answers of GSM8K; read at once.
PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
MAX_DEPTH = 6
MAX_ITEMS = 64
SET = "{}"
OPENING, CLOSING = "([{", ")]}"
NAME = re.compile(
    r"\\?[A-Za-z]+'*(?: ?_ ?(?:\{[^{}]*\}|\w))?(?: ?\^ ?\{-1\})?"
    r"(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z])* ?\))?"
    r"|\\text ?\{[^{}]*\}"
)
RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|lt|gt|neq|approx|equiv|in|sim)(?![A-Za-z])")
INEQUALITY = re.compile(r"<|>|\\(?:le|ge|lt|gt)(?![A-Za-z])")
MATRIX = re.compile(r"\\begin ?\{(?P<kind>[pbvBV]?matrix|array)\}(?P<body>.*)\\end ?\{(?P=kind)\}")
UPRIGHT = re.compile(r"\\text ?\{(?P<words>[^{}]*)\}")
LETTERS = re.compile(r"[A-Z]{1,4}(?:(?:,? and|,? or|,) ?[A-Z]{1,4})+")  # A, B and C
DECIMAL = re.compile(r"(?<![\w.^_])(\d*)\.(\d+)(?![\d.])(?! ?\\(?:overline|bar|dot|ldots|cdots))")
REPEATING = re.compile(
    r"(?<![\w.])(\d*)\.(\d*) ?(?:\\(?:overline|bar) ?\{ ?(\d+) ?\}|\((\d+)\)"
    r"|\\dot ?\{? ?(\d) ?\}?(?: ?(\d*)\\dot ?\{? ?(\d) ?\}?)?)"
)
SEPARATOR_WORD = re.compile(r"\\text ?\{ ?(?:and|or) ?\}| (?:and|or) ")
# What has another spelling among numbers and sets.
REALS = "(-\\infty, \\infty)"
ALSO_WRITTEN = {
    "\\mathbb{R}": REALS, "\\mathbbR": REALS, "\\Bbb{R}": REALS, "\u211d": REALS,
    "all real numbers": REALS, "all reals": REALS, "the real numbers": REALS,
    "no solution": "\\emptyset", "no solutions": "\\emptyset", "empty set": "\\emptyset",
    "the empty set": "\\emptyset", "dne": "\\text{does not exist}",
    "no real solution": "\\emptyset", "no real solutions": "\\emptyset",
    "there is no solution": "\\emptyset", "there are no solutions": "\\emptyset",
    "there are no real solutions": "\\emptyset", "no real roots": "\\emptyset",
    "infinitely many": "\\infty", "infinitely many solutions": "\\infty",
    "infinite": "\\infty", "infinity": "\\infty", "an infinite number": "\\infty",
    "\\mathbfR": REALS, "all real values": REALS, "any real number": REALS,
}  # fmt: skip


class Kind(StrEnum):
    SCALAR = "a number or expression"
    WORDS = "words"
    BASED = "a number in another base"
    LIST = "a list"  # order does not matter: solutions, sets
    TUPLE = "a tuple or interval"  # order and brackets matter
    UNION = "a union"
    EXCEPT = "all real numbers but some"
    RATIO = "a ratio of several numbers"
    MATRIX = "a matrix"
    EQUATION = "an equation or inequality"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`text` is the clean text of the whole. `items` are the parts of a compound; `brackets` tells
    (a, b) from [a, b), a set from a list, how relations are joined, and a matrix's shape. `name` is
    what an answer "x = 5" calls itself, and `bound` the letter of a set {x : ...}. A scalar's
    `unit` is off its `text`."""

    kind: Kind
    text: str
    items: tuple[Answer, ...] = ()
    brackets: str = ""
    name: str = ""
    unit: str = ""
    bound: str = ""


def read_answer(written: str) -> Answer:
    """Raises `Unreadable` for what `clean` refuses, brackets that do not match, too deep nesting
    and too many items."""
    if PLAIN_NUMBER.fullmatch(written):
        return Answer(kind=Kind.SCALAR, text=written)
    return read_part(clean(written))


def read_part(text: str) -> Answer:
    """As `read_answer`, of a text that is clean."""
    return without_braces(_read(text, MAX_DEPTH))


def _read(text: str, depth: int) -> Answer:
    text = without_delimiters(text.strip())
    if not text:
        raise Unreadable("has an empty part in its final answer")
    if depth == 0:
        raise Unreadable(f"has a final answer nested more than {MAX_DEPTH} deep")
    upright = UPRIGHT.fullmatch(text)
    if upright is not None and (
        re.search(r"\d", upright["words"]) or LETTERS.fullmatch(upright["words"].strip())
    ):
        return _read(upright["words"], depth - 1)
    text = ALSO_WRITTEN.get(as_words(text) or text.replace(" ", ""), text)
    inner = _in_bare_braces(text)
    if inner is not None:
        return _read(inner, depth - 1)
    return _read_compound(with_matrix_brackets(text), depth)


def _read_compound(text: str, depth: int) -> Answer:
    points = excepted_points(text)
    if points is not None:
        found = _read(points, depth - 1)
        items = found.items if found.kind is Kind.LIST else (found,)
        return Answer(kind=Kind.EXCEPT, text=text, items=items)
    matrix = MATRIX.fullmatch(text)
    if matrix is not None:
        return _matrix(text, matrix["kind"], matrix["body"], depth)
    parts = split_top(text, (",", ";"), words=True)
    if len(parts) > 1:
        items = tuple(item for part in parts for item in _spread(_read(part, depth - 1)))
        related = any(item.kind is Kind.EQUATION for item in items)
        return Answer(
            kind=Kind.LIST, text=text, items=items, brackets=_connectives(text) if related else ""
        )
    builder = set_builder(text)
    if builder is not None:
        letter, condition = builder
        return replace(_read(condition, depth - 1), bound=letter)
    equation = RELATION.search(text)
    if equation is not None:
        return _equation(text, depth)
    parts = split_top(text, ("\\cup",))
    if len(parts) > 1:
        items = tuple(_read(part, depth - 1) for part in parts)
        return Answer(kind=Kind.UNION, text=text, items=items)
    bracketed = _bracketed(text, depth)
    if bracketed is not None:
        return bracketed
    return _read_simple(text, depth)


def _read_simple(text: str, depth: int) -> Answer:
    parts = split_top(text, (":",))
    if len(parts) > 2:
        items = tuple(_read(part, depth - 1) for part in parts)
        if all(item.kind is Kind.SCALAR for item in items):
            return Answer(kind=Kind.RATIO, text=text, items=items)
    signs = _plus_minus(text)
    if signs:
        items = tuple(_leaf(part) for part in signs)
        return Answer(kind=Kind.LIST, text=text, items=items)
    return _leaf(text)


def _connectives(text: str) -> str:
    """What joins relations: x < 1 or x > 2 is not x < 1 and x > 2."""
    words = {re.sub(r"[^a-z]|text", "", word) for word in SEPARATOR_WORD.findall(text)}
    return " ".join(sorted(words)) or ","


def _leaf(text: str) -> Answer:
    words = as_words(text)
    if words and "\\text" in text:
        return Answer(kind=Kind.WORDS, text=words)
    based = based_number(text)
    if based is not None and based.endswith("_10") and based[:-3].isdigit():
        return Answer(kind=Kind.SCALAR, text=based[:-3])
    if based is not None:
        return Answer(kind=Kind.BASED, text=based)
    if words and len(words) > 2:
        return Answer(kind=Kind.WORDS, text=words)
    text = with_plain_letters(in_digits(text))
    number, unit = split_unit(text)
    apart = re.sub(r"\\log ?_ ?\d(?= )", r"\\log", number)
    if re.search(r"\d \d", apart) and rational(number) is None:
        raise Unreadable("has two numbers side by side in its final answer")
    return Answer(kind=Kind.SCALAR, text=number.strip(), unit=unit)


def as_words(text: str) -> str:
    """Folded words where the text is nothing but words, else ''. Letters of a choice lose their
    parentheses."""
    plain = UPRIGHT.sub(lambda match: match["words"], text).strip(" .\"'`*")
    if not re.fullmatch(r"\(? ?[^\W\d_][^\W\d_ '-]*(?:[ '-]+[^\W\d_]+)* ?\)?", plain):
        return ""
    choice = re.fullmatch(r"\(? ?([A-Za-z]) ?\)?", plain)
    if " - " in plain or (choice is None and not re.search(r"[^\W\d_]{2}", plain)):
        return ""  # p - q
    return " ".join((choice[1] if choice else plain).casefold().split())


def _in_bare_braces(text: str) -> str | None:
    """What one pair of TeX's own braces holds, where it holds the whole text."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:-1] if at == len(text) - 1 else None
    return None


def _spread(item: Answer) -> tuple[Answer, ...]:
    """A list within a list is one list: 1 \\pm \\sqrt{5}, -2."""
    bare = item.kind is Kind.LIST and item.brackets != SET and not item.name
    return item.items if bare else (item,)


def without_braces(answer: Answer) -> Answer:
    """The one element of a set that stands for itself: {5} is 5, and {{5}} is not, nor is what
    holds the empty set."""
    if answer.brackets != SET or len(answer.items) != 1 or answer.items[0].brackets == SET:
        return answer
    if answer.items[0].text.strip() == "\\emptyset":
        return answer
    return replace(answer.items[0], name=answer.name or answer.items[0].name)


def _equation(text: str, depth: int) -> Answer:
    """`name = value` is the value with its name, `name \\in set` too; `x = 10/2 = 5` keeps all its
    values, which must then all be right. Everything else is an equation as a whole."""
    whole = Answer(kind=Kind.EQUATION, text=text)
    sides = [side.strip() for side in split_top(text, ("=",))]
    if len(sides) == 2 and re.fullmatch(r"[A-Za-z]", sides[1]) and not NAME.fullmatch(sides[0]):
        text = f"{sides[1]} = {sides[0]}"  # 5 = x
    for separator in ("=", "\\in"):
        parts = split_top(text, (separator,))
        rest = " ".join(parts[1:])
        if len(parts) < 2 or RELATION.search(rest) or not NAME.fullmatch(parts[0].strip()):
            continue
        values = tuple(without_braces(_read(part, depth - 1)) for part in parts[1:])
        name = parts[0].replace(" ", "")
        if separator == "\\in" and values[0].kind is Kind.TUPLE:
            # A union of one interval: a pair has no members.
            return Answer(kind=Kind.UNION, text=values[0].text, items=values, name=name)
        if len(values) == 1:
            return replace(values[0], name=name)
        if all(value.kind is Kind.SCALAR for value in values):
            return Answer(kind=Kind.SCALAR, text=values[-1].text, items=values, name=name)
    return whole


def _bracketed(text: str, depth: int) -> Answer | None:
    """What one pair of brackets encloses, where it encloses the whole text."""
    if text.startswith("\\{") and text.endswith("\\}"):
        left, right, inner = "{", "}", text[2:-2]
    elif text[0] in "([" and text[-1] in ")]":
        left, right, inner = text[0], text[-1], text[1:-1]
    else:
        return None
    try:
        parts = split_top(inner, (",", ";"))
    except Unreadable:
        return None  # (1+2)(3+4): two pairs
    if left == "{":
        items = tuple(item for part in parts for item in _spread(_read(part, depth - 1)))
        return Answer(kind=Kind.LIST, text=text, items=items, brackets=SET)
    if len(parts) == 1:
        if as_words(text):
            return None  # the letter of a choice
        return _read(inner, depth - 1) if left + right == "()" else None
    items = tuple(_read(part, depth - 1) for part in parts)
    return Answer(kind=Kind.TUPLE, text=text, items=items, brackets=left + right)


def _matrix(text: str, kind: str, body: str, depth: int) -> Answer:
    """Round and square brackets mean the same matrix; bars mean another thing."""
    if kind == "array":
        body = re.sub(r"^ ?\{[^{}]*\}", "", body)
    rows = [row for row in re.split(r"\\\\", body) if row.strip()]
    cells = [[_read(cell, depth - 1) for cell in row.split("&")] for row in rows]
    widths = {len(row) for row in cells}
    if len(widths) != 1:
        raise Unreadable("has a matrix with rows of different lengths")
    items = tuple(cell for row in cells for cell in row)
    if len(items) > MAX_ITEMS:
        raise Unreadable(f"lists more than {MAX_ITEMS} things")
    bars = kind[0] if kind in ("vmatrix", "Vmatrix") else ""
    shape = f"{len(cells)}x{widths.pop()}{bars}"
    return Answer(kind=Kind.MATRIX, text=text, items=items, brackets=shape)


def split_top(text: str, separators: tuple[str, ...], *, words: bool = False) -> list[str]:
    """Split outside all brackets. With `words`, "and" and "or" separate too. Raises `Unreadable`
    when brackets do not match; intervals may open with one kind and close with another."""
    if words:
        text = SEPARATOR_WORD.sub(" , ", text)
        text = re.sub(r"\s*,(?:\s*,)+\s*", ", ", text)  # the comma before an "and"
    parts: list[str] = []
    depth = start = i = 0
    while i < len(text):
        if depth == 0:
            found = next((s for s in separators if text.startswith(s, i)), None)
            if found is not None and not (
                found[-1].isalpha() and text[i + len(found) :][:1].isalpha()
            ):
                parts.append(text[start:i])
                i += len(found)
                start = i
                continue
        if text[i] == "\\" and text[i + 1 : i + 2] in ("{", "}"):
            i += 1
        elif text[i] == "\\":
            i += 2 if text[i + 1 : i + 2] == "\\" else 1
            continue
        depth += (text[i] in OPENING) - (text[i] in CLOSING)
        if depth < 0:
            raise Unreadable("has brackets that do not match in its final answer")
        i += 1
    if depth:
        raise Unreadable("has brackets that do not match in its final answer")
    parts.append(text[start:])
    if len(parts) > MAX_ITEMS:
        raise Unreadable(f"lists more than {MAX_ITEMS} things")
    return parts


def _plus_minus(text: str) -> tuple[str, ...]:
    """Both readings of an expression with `\\pm` or `\\mp`."""
    signs = re.compile(r"\\(pm|mp)(?![A-Za-z])")
    if not signs.search(text):
        return ()
    upper = signs.sub(lambda m: "+" if m[1] == "pm" else "-", text)
    lower = signs.sub(lambda m: "-" if m[1] == "pm" else "+", text)
    return upper.strip().removeprefix("+").strip(), lower.strip()


def exact_decimals(text: str) -> str:
    """Decimals, repeating ones too, as fractions: computer algebra compares those exactly."""
    text = REPEATING.sub(_repeating, text)
    return DECIMAL.sub(
        lambda m: f"\\frac{{{int((m[1] or '0') + m[2])}}}{{1{'0' * len(m[2])}}}", text
    )


def _repeating(match: re.Match[str]) -> str:
    whole, fixed = (match[1] or "0"), match[2]
    period = match[3] or match[4] or "".join(part or "" for part in match.groups()[4:])
    over = int(whole + fixed + period) - int(whole + fixed)
    return f"\\frac{{{over}}}{{{10 ** len(fixed) * (10 ** len(period) - 1)}}}"


def is_percent(answer: Answer) -> bool:
    return answer.unit == PERCENT


def like_its_unit(answer: Answer, unit: str) -> Answer:
    """5N is 5 newtons beside an answer in newtons; elsewhere N is a variable."""
    number = letter_taken_off(answer.text, unit) if not answer.unit else None
    return answer if number is None else replace(answer, text=number, unit=unit)


def with_degrees(answer: Answer) -> Answer:
    """An answer in radians in degrees; the only unit that is converted, as it is exact."""
    if answer.unit != "radian":
        return answer
    return replace(answer, text=f"\\frac{{180 \\cdot ({answer.text})}}{{\\pi}}", unit=DEGREE)
