"""Notations that are brought to another one before an answer's structure is read."""

from __future__ import annotations

import re

from rewards.mathematics.answers import Unreadable

BASES = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip
_DIGITS = r"\(? ?(?:\\text ?\{ ?)?(?P<digits>[0-9A-Z]+|[0-9a-f]*\d[0-9a-f]*) ?\}? ?\)?"
_BASE = rf"(?P<base>\d{{1,2}}|{'|'.join(BASES)})"
BASED = (
    re.compile(rf"{_DIGITS} ?_ ?\{{? ?(?:\\text ?\{{ ?)?\(? ?{_BASE} ?\)? ?\}}? ?\}}?"),
    re.compile(
        rf"{_DIGITS} ?(?:\\text ?\{{)? ?\(?(?:in )?base[ -]\}}?\{{? ?{_BASE} ?\}}?\)? ?\}}?"
    ),
)
MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MAGNITUDE = rf"(?P<{{}}>{'|'.join(MAGNITUDES)})s?"
MAGNITUDE = re.compile(
    r"(?P<before>-? ?(?:\\?[$\u20ac\u00a3\u00a5])? ?)(?P<number>\d+(?:\.\d+)?) ?"
    rf"(?:\\text ?\{{ ?{_MAGNITUDE.format('upright')}(?P<more>\b[^{{}}]*)\}}"
    rf"|{_MAGNITUDE.format('plain')}(?P<rest>\b.*)?)"
)
REALS = r"(?:\\(?:mathbb|Bbb|mathbf) ?\{? ?R ?\}?|\u211d|\( ?-\\infty ?, ?\+?\\infty ?\))"
EXCEPT = re.compile(
    rf"(?:[a-z] ?\\in ?)?{REALS} ?(?:\\(?:setminus|smallsetminus|backslash)|-|\\) ?"
    r"\\\{(?P<points>.*)\\\}"
)
EXCEPT_WORDS = re.compile(
    r"(?:[a-z] (?:is|can be) )?(?:all|any|every|the) (?:reals?|real (?:numbers?|values?)|numbers?)"
    r"(?: of)?(?: [a-z])? (?:except|excluding|besides|other than|but|not equal to)(?: for| when)?"
    r" ?(?:[a-z] ?= ?)?(?P<points>.+)",
    re.I,
)
UPRIGHT = re.compile(r"\\text ?\{([^{}]*)\}")
BUILDER = re.compile(
    r"\\\{ ?(?P<letter>[A-Za-z]) ?(?:\\in ?(?P<domain>[^:|]+?) ?)?(?::|\||\\mid(?![A-Za-z])) ?"
    r"(?P<condition>.+)\\\}"
)
BRACKETED_MATRIX = re.compile(
    r"(?P<left>[(\[|]) ?\\begin ?\{(?P<kind>array|matrix|smallmatrix)\} ?(?:\{[lcr| ]*\})?"
    r"(?P<body>(?:(?!\\begin).)*?)\\end ?\{(?P=kind)\} ?(?P<right>[)\]|])"
)


def based_number(text: str) -> str | None:
    """11111_2 for every way to write it; None for what is no number in another base."""
    match = next((found for pattern in BASED if (found := pattern.fullmatch(text))), None)
    if match is None:
        return None
    base = BASES.index(match["base"]) + 2 if match["base"] in BASES else int(match["base"])
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in match["digits"]):
        return None
    return f"{match['digits'].upper().lstrip('0') or '0'}_{base}"


def in_digits(text: str) -> str:
    """5 million as 5000000; what follows is a unit."""
    match = MAGNITUDE.fullmatch(text)
    if match is None:
        return text
    zeros = MAGNITUDES[match["upright"] or match["plain"]]
    whole, _, decimals = match["number"].partition(".")
    digits = whole + decimals.ljust(zeros, "0")[:zeros]
    left = decimals[zeros:]
    number = (digits.lstrip("0") or "0") + (f".{left}" if left else "")
    more = f"\\text{{{match['more']}}}" if (match["more"] or "").strip() else match["rest"] or ""
    return f"{match['before']}{number}{more}"


def excepted_points(text: str) -> str | None:
    """What "all real numbers except 1 and 2" and \\mathbb{R} \\setminus \\{1, 2\\} leave out."""
    match = EXCEPT.fullmatch(text)
    if match is None:
        match = EXCEPT_WORDS.fullmatch(" ".join(UPRIGHT.sub(r" \1 ", text).split()))
    return match["points"] if match is not None else None


def set_builder(text: str) -> tuple[str, str] | None:
    """The letter and the condition of \\{x : x > 1\\}. Raises `Unreadable` for another domain than
    the real numbers."""
    match = BUILDER.fullmatch(text)
    if match is None:
        return None
    domain = match["domain"]
    if domain is not None and not re.fullmatch(REALS, domain.strip()):
        raise Unreadable("has a set whose domain is not read")
    return match["letter"], match["condition"]


def with_matrix_brackets(text: str) -> str:
    """An array between brackets as the matrix that it is."""
    return BRACKETED_MATRIX.sub(_matrix, text)


def _matrix(match: re.Match[str]) -> str:
    if (match["left"] == "|") != (match["right"] == "|"):
        return match[0]
    kind = "vmatrix" if match["left"] == "|" else "pmatrix"
    return f"\\begin{{{kind}}}{match['body']}\\end{{{kind}}}"
