"""Compare two spellings of a final answer, without algebra."""

from __future__ import annotations

import re
from fractions import Fraction

RATIONAL = re.compile(
    r"(?P<sign>[-+]?) ?(?:(?P<mixed>\d+) (?=\d+ ?/)(?P<top>\d+)"
    r"|(?P<whole>\d+) ?(?=\\frac)|(?P<number>\d+\.?\d*|\.\d+)(?! ?\\frac))?"
    r"(?:\\frac ?\{ ?(?P<over>[-+]?\d+) ?\} ?\{ ?(?P<under>[-+]?\d+) ?\}| ?/ ?(?P<slash>\d+))?"
)
LEFT_OUT = re.compile(
    r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! ]|\\?[$%]|\^ ?\{? ?\\circ ?\}?|~|\s"
)
UPRIGHT_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|textit|textrm|mathbf)\s?\{([^{}]*)\}")
# x^{2} is x^2, \\sqrt{3} is \\sqrt3.
SINGLE = re.compile(r"([\^_]|\\sqrt)\{(\d|[A-Za-z](?![A-Za-z])|\\[A-Za-z]+)\}")
SAME_COMMANDS = {
    "le": "leq|leqslant", "ge": "geq|geqslant", "ne": "neq", "emptyset": "varnothing",
    "cdot": "times|ast", "{": "lbrace", "}": "rbrace", "dots": "ldots|cdots",
}  # fmt: skip
VARIABLE_PREFIX = re.compile(r"[A-Za-z](?:=|\\in(?![A-Za-z]))")
SHORT_FRACTION = re.compile(r"\\frac(?:(\d)(\d)|(\d)\{([^{}]+)\}|\{([^{}]+)\}(\d))")
NUMBER_WITH_COMMAS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def rational(text: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or mixed number (a whole number before a
    proper fraction); None for all else."""
    match = RATIONAL.fullmatch(text.replace("{,}", ""))
    if match is None:
        return None
    sign = -1 if match["sign"] == "-" else 1
    number = match["number"] or match["whole"]
    over = match["over"]
    if match["mixed"] is not None or match["slash"] is not None:
        slash = int(match["slash"] or 0)
        if slash == 0:
            return None
        if match["mixed"] is not None:
            if int(match["top"]) >= slash:
                return None
            return sign * (int(match["mixed"]) + Fraction(int(match["top"]), slash))
        if number is None:
            return None
        return sign * Fraction(number) / int(match["slash"])
    if over is None:
        return None if number is None else sign * Fraction(number)
    under = int(match["under"])
    if under == 0 or (number is not None and not 0 < int(over) < under):
        return None
    return sign * (Fraction(number or 0) + Fraction(int(over), under))


def same_spelling(first: str, second: str) -> bool:
    """Whether two texts are spellings of the same final answer.

    They are when they are the same number, or the same text apart from spaces, sizes, fonts,
    delimiters, braces around a single sign, names of a command, unit signs and a name before the
    answer ("x = 5"). Words after a number are ignored when the other text has none. False means
    only that this function cannot see that they are the same.
    """
    ours, theirs = _spellings(first), _spellings(second)
    if ours & theirs:
        return True
    values = [
        {value for text in texts if (value := rational(text)) is not None}
        for texts in (ours, theirs)
    ]
    return bool(values[0] & values[1])


def _spellings(text: str) -> set[str]:
    """The normalised text with its words, and also without them if that leaves some text."""
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text.strip().rstrip("."))
    for name, others in SAME_COMMANDS.items():
        text = re.sub(rf"\\(?:{others})(?![A-Za-z])", rf"\\{name} ", text)
    found: set[str] = set()
    for replacement in (r"\1", ""):
        plain = LEFT_OUT.sub("", UPRIGHT_TEXT.sub(replacement, text)).replace("{,}", ",")
        plain = SHORT_FRACTION.sub(_with_braces, plain).rstrip(".")
        plain = SINGLE.sub(r"\1\2", plain)
        if NUMBER_WITH_COMMAS.fullmatch(plain):
            plain = plain.replace(",", "")
        if re.fullmatch(r"\([A-Za-z]\)", plain):
            plain = plain[1]
        found |= {
            plain,
            VARIABLE_PREFIX.sub("", plain, count=1) if VARIABLE_PREFIX.match(plain) else plain,
        }
    return found - {""}


def _with_braces(match: re.Match[str]) -> str:
    over, under = (part for part in match.groups() if part is not None)
    return f"\\frac{{{over}}}{{{under}}}"
