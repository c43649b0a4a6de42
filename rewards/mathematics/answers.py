"""The final answer in a solution's text, and its clean form.

Which part of a solution is its answer, decided once for all:
1. its last line, where that starts with `####` (GSM8K's mark);
2. else the last `\\boxed{...}`; boxes with nothing but "," ";" "and" "or" or dollar signs between
   them are one answer that lists all of them, so alternatives cannot be tried one by one;
3. else what follows "answer is", "answer:" or "answer =" in its last line.
Everything else is no answer. Reading takes time linear in the text and never evaluates it.
"""

from __future__ import annotations

import re
import unicodedata

from data.boxes import BOX_STARTS, BadBox, last_boxes

MAX_ANSWER_CHARACTERS = 2000
PHRASE = re.compile(r".*\banswer\b(?:\s+is)?\s*(?:[:=]\s*|(?<=is)\s+)(?P<answer>\S.*)", re.I)
DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))

# Signs with one reading; digits of other scripts, superscripts and vulgar fractions are not here.
SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-",
    "\u00d7": "\\times ", "\u22c5": "\\cdot ", "\u00b7": "\\cdot ", "\u00f7": "/", "\u2044": "/",
    "\u2215": "/", "\u03c0": "\\pi ", "\u03b8": "\\theta ", "\u221e": "\\infty ",
    "\u00b1": "\\pm ", "\u2213": "\\mp ", "\u00b0": "^\\circ ", "\u2264": "\\le ",
    "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ",
    "\u2208": "\\in ", "\u2205": "\\emptyset ", "\u27e8": "\\langle ", "\u27e9": "\\rangle ",
    "\u2032": "'", "\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"',
    "\uff05": "%", "\uff0c": ",", "\uff1b": ";", "\uff08": "(", "\uff09": ")", "\uff1d": "=",
    "\u3002": ".",
}  # fmt: skip
SPACES = re.compile(r"\\(?:quad|qquad|enspace|thinspace|,|;|:|>| )|~")
SIZES = re.compile(r"\\(?:left|right|[bB]ig+[lrm]?|displaystyle|textstyle|limits)(?![A-Za-z])")
FONTS = re.compile(r"\\(?:mbox|textrm|textbf|textit|textsf|mathrm|mathbf|mathit|mathsf|hbox|emph)")
THOUSANDS = re.compile(
    r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)"
)
SCIENTIFIC = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?!\w)")
BARE_FRACTION = re.compile(r"\\frac\s*(\d|\{[^{}]*\})\s*(\d|\{[^{}]*\})")
BARE_ROOT = re.compile(r"\\sqrt\s*(\d|[A-Za-z])(?![A-Za-z])")
# With it, an answer says that there is more than is written.
ELLIPSIS = re.compile(r"\. ?\.|\\(?:[lcv]?dots|dots[cbmio])(?![A-Za-z])")


class Unreadable(ValueError):
    """Text that is not taken for an answer; the message is the reason."""


def final_answer(solution: str) -> str:
    """The text of the final answer, as written. Raises `Unreadable` where there is none, it is
    empty, cut off in the middle, or longer than `MAX_ANSWER_CHARACTERS`."""
    stripped = solution.rstrip()
    last_line = stripped[stripped.rfind("\n") + 1 :].strip()
    if last_line.startswith("####") and not any(start in last_line for start in BOX_STARTS):
        return _bounded(last_line.lstrip("#").strip())
    try:
        boxed = last_boxes(solution)
    except BadBox as error:
        raise Unreadable(str(error)) from error
    if boxed is not None:
        return _bounded(boxed.strip())
    match = PHRASE.fullmatch(last_line[-MAX_ANSWER_CHARACTERS:])
    if match is None:
        raise Unreadable("has no final answer: no last line with ####, no \\boxed{...}")
    return _bounded(match["answer"].strip())


def _bounded(answer: str) -> str:
    if not answer:
        raise Unreadable("has an empty final answer")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        raise Unreadable(
            f"has a final answer of {len(answer)} characters; at most {MAX_ANSWER_CHARACTERS} are "
            "read"
        )
    return answer


def clean(answer: str) -> str:
    """One spelling for what TeX and Unicode spell in many: `\\frac` with braces, no size commands,
    `\\text` for every upright font, no thousands separators outside brackets.

    Raises `Unreadable` for invisible characters, digits that are not ASCII, and any other character
    that is neither ASCII nor a known sign: what looks like 42 must be 42.
    """
    text = "".join(_sign(character) for character in answer)
    text = re.sub(r",\s*\\!\s*(?=\d{3})", ",", text)
    text = text.replace("\\!", "").replace("\\%", "%").replace("{,}", ",").replace("\\\n", " ")
    text = text.replace("\\lbrace", "\\{").replace("\\rbrace", "\\}")
    text = re.sub(r"(?<=\d)\\,(?=\s*\d{3})\s*", ",", text)
    text = FONTS.sub(r"\\text", SIZES.sub("", text))
    text = re.sub(r"\\\\(?=[ ,;:])", r"\\\\ ", text)
    text = re.sub(r"(?<!\\)" + SPACES.pattern, " ", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\(?:degrees?|deg)(?![A-Za-z])", r"^\\circ ", text)
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}", r"^\\circ ", text)
    text = re.sub(r"\\(?:leqslant|leq)(?![A-Za-z])", r"\\le ", text)
    text = re.sub(r"\\(?:geqslant|geq)(?![A-Za-z])", r"\\ge ", text)
    text = re.sub(r"\\langle(?![A-Za-z])", "(", re.sub(r"\\rangle(?![A-Za-z])", ")", text))
    text = re.sub(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset ", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = without_delimiters(text)
    if ELLIPSIS.search(text):
        raise Unreadable("has a final answer that goes on (...)")
    text = _join_thousands(text)
    text = SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = BARE_FRACTION.sub(_braced_fraction, text)
    text = BARE_ROOT.sub(r"\\sqrt{\1}", text)
    if not text:
        raise Unreadable("has an empty final answer")
    return text


def _sign(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() or character.isspace() else _reject(character)
    if character in SIGNS:
        return SIGNS[character]
    if character.isspace():
        return " "
    if unicodedata.category(character) in ("Ll", "Lu", "Lo", "Lm", "Mn", "Sc"):
        return character  # words of any language, compared as text
    return _reject(character)


def _reject(character: str) -> str:
    name = unicodedata.name(character, f"U+{ord(character):04X}")
    raise Unreadable(f"has a final answer with a character that is not read: {name}")


def without_delimiters(text: str) -> str:
    for _ in range(4):
        before = text
        text = re.sub(r"(?<![\\.])[.,;:]$", "", text).strip()
        for left, right in DELIMITERS:
            inner = text[len(left) : len(text) - len(right)]
            if (
                len(text) > len(left) + len(right) - 1
                and text.startswith(left)
                and text.endswith(right)
                and not text.endswith("\\" + right)
                and not re.search(rf"(?<!\\){re.escape(left)}", inner)
            ):
                text = inner.strip()
        if text == before:
            break
    return text


def _join_thousands(text: str) -> str:
    """`1,234` and `1 234` become `1234`, outside brackets: (1,234) is a pair."""
    if any(bracket in text for bracket in ("(", "[", "\\{")):
        return text
    return THOUSANDS.sub(lambda match: re.sub("[, ]", "", match[0]), text)


def _braced_fraction(match: re.Match[str]) -> str:
    over, under = (part if part.startswith("{") else f"{{{part}}}" for part in match.groups())
    return f"\\frac{over}{under}"
