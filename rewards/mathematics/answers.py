"""The final answer in a solution's text, and its clean form.

Which part of a solution is its answer, decided once for all:
1. its last line, where that starts with `####` (GSM8K's mark); where the solution has no box, words
   without numbers or formulas may follow;
2. else what `<answer>` tags hold, where the solution ends with them;
3. else the last `\\boxed{...}`;
4. else what follows "answer is", "answer:" or "answer =" in its last line, or the last line where
   the one before it is "Answer:" alone. Bold marks and "I hope it is correct" are left out.
Several lines (with `####`, or all beginning with "answer is"), tags or boxes with nothing between
them but "or", "and" and their kind (`data.boxes.joins`) are one answer that lists all of them, so
alternatives cannot be tried one by one: all of them must be the gold answer, or they must list what
it lists.
What a model thinks, up to the last `</think>`, holds no answer, and marks such as `<|im_end|>` at
the end are left out. Everything else is no answer. Reading takes time linear in the text and never
evaluates it.
"""

from __future__ import annotations

import re
import unicodedata

from data.boxes import BOX_STARTS, BadBox, joins, last_boxes

MAX_ANSWER_CHARACTERS = 2000
MAX_TAIL_CHARACTERS = 20_000  # of a solution, where a mark in its last lines is looked for
THOUGHT_END = "</think>"
END_MARKS = re.compile(r"(?:\s*(?:<\|[a-z_]{1,30}\|>|</s>|<eos>))+\s*\Z")
HEADING = r"(?:the )?(?:final |correct |short )?answers?"
PHRASE = re.compile(
    r".*\banswers?\b(?:\s+(?:to|for)\b[^:=]{0,200}?)?"
    r"(?:\s*[:=]\s*|\s+(?:is|are|equals|(?:will|would|must|should) be)\b\s*:?\s*)"
    r"(?:(?:therefore|thus|hence|then|simply|just|clearly|now|indeed|given by|equal to)\b[,:]?\s*)*"
    r"(?P<answer>\S.*)",
    re.I,
)
HEADING_LINE = re.compile(rf"{HEADING}(?: is)?\s*:?", re.I)
HEADED = re.compile(rf"[-#* ]*{HEADING}\s*(?:[:=]|is\b)", re.I)
OFFERED = re.compile(
    r"\b(?:or|alternatively|possibly|maybe|perhaps|otherwise)\b"
    r"(?:[\s,:*$]|\b(?:else|possibly|maybe|perhaps|that|the|my|an?|final|correct|other|right)\b)*\Z",
    re.I,
)
CLOSING_WORDS = re.compile(
    r"(?:\A|(?<=[.!$*\s]))\s*(?:I hope (?:it|this|that) is (?:correct|right)"
    r"|(?:I )?hope (?:this|it) helps)"
    r"[.!]*\Z",
    re.I,
)
CLOSING_LINE = re.compile(r"[^\d\\$=#{}<>]{1,80}")
DISPLAYED = (("$$", "$$"), ("\\[", "\\]"))
TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.S | re.I)
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
SIZES = re.compile(
    r"\\(?:left|right|[bB]ig+[lrm]?|displaystyle|textstyle|scriptstyle|limits|small|large|Large"
    r"|normalsize|bf|rm|it|bfseries|boldmath|checkmark|blacksquare|square|qed|nonumber|notag)"
    r"(?![A-Za-z])|\\(?:tag|label|hspace|vspace|color)\*? ?\{[^{}]*\}|\u2713"
)
FONTS = re.compile(
    r"\\(?:mbox|text(?:rm|bf|it|sf|normal|up|sc|tt|sl|md)|math(?:rm|bf|it|sf|tt|normal)|hbox|emph)"
    r"(?![A-Za-z])"
)
WRAPPERS = re.compile(
    r"\\(?:boxed|fbox|underline|boldsymbol|bm|pmb|ensuremath|mathop|mathstrut"
    r"|textcolor ?\{[^{}]*\}) ?"
    r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
SWITCHED = re.compile(r"\{ ?\\(?:rm|bf|it) ([A-Za-z ./]+)\}")
ROOT_SIGN = re.compile("\u221a ?(?:(\\d+(?:\\.\\d+)?)|([A-Za-z])|\\(([^()]*)\\)|\\{([^{}]*)\\})")
OVER = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*)\\(over|choose)(?![A-Za-z])((?:[^{}]|\{[^{}]*\})*)\}")
UNIT_FRACTION = re.compile(r"\\frac ?\{ ?\\text ?\{([^{}]*)\} ?\} ?\{ ?\\text ?\{([^{}]*)\} ?\}")
CHOSEN = re.compile(
    r"(?<![A-Za-z0-9)}\]])(?:\{ ?\})?[_^] ?\{? ?(\d+|[a-z]) ?\}? ?"
    r"(?:C|\\text ?\{ ?C ?\}) ?_ ?(?:\{([^{}]*)\}|(\w))"
)
THOUSANDS = re.compile(
    r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)"
)
SCIENTIFIC = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?!\w)")
BARE_FRACTION = re.compile(
    r"\\(frac|binom)(?!\s*\{[^{}]*\}\s*\{)\s*(\d|\{[^{}]*\})\s*(\d(?![\d.])|\{[^{}]*\})"
)
BARE_ROOT = re.compile(r"\\sqrt\s*(\d(?![\d.])|[A-Za-z](?![A-Za-z]))")
# The letter of a choice: "B) 12", "option B".
LOOSE_CHOICE = re.compile(r"\A\s*([A-J])(?:\)|[.:](?= ))\s*(?=[^\s)])")
OPTION = re.compile(
    r"\A\s*(?:\\text ?\{ ?)?(?:the )?(?:option|choice) ?\}? ?(?:\\text ?\{ ?)?"
    r"(\(?[A-J]\)?) ?\}?[\s.]*\Z",
    re.I,
)
# Names that are written without a backslash.
PLAIN_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
PLAIN_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt ?(?:(\d+(?:\.\d+)?)|\(([^()]*)\)|\{([^{}]*)\})")
PLAIN_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])(arcsin|arccos|arctan|sin|cos|tan|cot|log|ln|exp)"
    r"(?= ?[\d({\\]| [a-z](?![a-z]))"
)
# Dollar signs around a part of the answer, which are no currency's.
INNER_DOLLARS = re.compile(r"(?<!\\)\$([^$\s](?:[^$]*[^$\s\\])?)\$(?!\d)")
PLAIN_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|infty|inf|oo)(?![A-Za-z])")
OPERATORS = frozenset(
    ("arcsin", "arccos", "arctan", "sin", "cos", "tan", "ln", "log", "exp", "gcd")
)
# With it, an answer says that there is more than is written.
ELLIPSIS = re.compile(r"\. ?\.|\\(?:[lcv]?dots|dots[cbmio])(?![A-Za-z])")


class Unreadable(ValueError):
    """Text that is not taken for an answer; the message is the reason."""


def final_answer(solution: str) -> str:
    """The text of the final answer, as written. Raises `Unreadable` where there is none, it is
    empty, cut off in the middle, or longer than `MAX_ANSWER_CHARACTERS`."""
    solution = _said(solution)
    tail = solution.rstrip()[-MAX_TAIL_CHARACTERS:]
    marked = _marked_lines(tail, closed=not any(start in solution for start in BOX_STARTS))
    if marked is not None:
        return _bounded(marked)
    tagged = tagged_answer(tail)
    if tagged is not None:
        return _bounded(tagged)
    try:
        boxed = last_boxes(solution)
    except BadBox as error:
        raise Unreadable(str(error)) from error
    if boxed:
        return _bounded(", ".join(box.strip() for box in boxed))
    phrase = _phrase(tail)
    if phrase is None:
        raise Unreadable("has no final answer: no last line with ####, no \\boxed{...}")
    return _bounded(phrase)


def _said(solution: str) -> str:
    """Without what is thought before the answer, and the marks of a text's end."""
    end = solution.rfind(THOUGHT_END)
    said = solution[end + len(THOUGHT_END) :] if end >= 0 else solution
    tail = END_MARKS.sub("", said[-MAX_ANSWER_CHARACTERS:])
    return said[:-MAX_ANSWER_CHARACTERS] + tail


def _marked_lines(tail: str, *, closed: bool) -> str | None:
    """What the last line with #### says, with the ones joined to it. With `closed`, up to two lines
    of words may stand behind it."""
    lines = [line.strip() for line in tail.split("\n")]
    for _ in range(2):
        while len(lines) > 1 and not lines[-1]:
            lines.pop()
        if not (closed and CLOSING_LINE.fullmatch(lines[-1])):
            break
        lines.pop()
        if not lines:
            return None
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    if not lines or not _is_marked(lines[-1]):
        return None
    found: list[str] = []
    between: list[str] = []
    for line in reversed(lines[-40:]):
        if not _is_marked(line):
            between.append(line)
            continue
        if not joins(" ".join(between)):
            break
        found.append(line.lstrip("#").strip())
        between.clear()
    if len(found) > 1 and "" in found:
        return ""
    answers = [_phrase(answer) or answer for answer in reversed(found)]
    return ", ".join(dict.fromkeys(answers))


def _is_marked(line: str) -> bool:
    return line.startswith("####") and not any(start in line for start in BOX_STARTS)


def tagged_answer(tail: str) -> str | None:
    """What the answer's tags at the end hold, with the ones joined to them; None without tags."""
    found = list(TAGGED.finditer(tail))
    if not found or tail[found[-1].end() :].strip():
        return None
    parts = [found[-1]]
    for match in reversed(found[:-1]):
        if not joins(tail[match.end() : parts[-1].start()]):
            break
        parts.append(match)
    return ", ".join(_untagged(match[1].strip()) for match in reversed(parts))


def _untagged(content: str) -> str:
    marked = content.startswith("####") or any(start in content for start in BOX_STARTS)
    if marked:
        return final_answer(content)
    return (_phrase(content) or content) if HEADED.match(content) else content


def _phrase(tail: str) -> str | None:
    tail = _with_displayed_line(tail)
    lines = [
        line.strip() for line in tail[-3 * MAX_ANSWER_CHARACTERS :].split("\n") if line.strip()
    ]
    lines = [CLOSING_WORDS.sub("", _unmarked(line)).strip() for line in lines[-8:]]
    lines = [line for line in lines if line]
    if not lines:
        return None
    match = PHRASE.fullmatch(lines[-1][-MAX_ANSWER_CHARACTERS:])
    if match is None:
        headed = len(lines) > 1 and HEADING_LINE.fullmatch(lines[-2].lstrip("# "))
        return lines[-1] if headed else None
    heading = lines[-1].lower().rfind("answer", 0, lines[-1].rfind(match["answer"]))
    if OFFERED.search(lines[-1][:heading]):
        raise Unreadable("offers its last answer beside another one")
    found = [match["answer"].strip()]
    while len(found) < len(lines) and HEADED.match(lines[-1]):
        before = lines[-1 - len(found)]
        match = PHRASE.fullmatch(before) if HEADED.match(before) else None
        if match is None:
            break
        found.append(match["answer"].strip())
    return ", ".join(answer.rstrip(".") for answer in reversed(found)) if found[1:] else found[0]


def _with_displayed_line(tail: str) -> str:
    """With the displayed formula at the end, which may have lines of its own, as one line."""
    text = tail.rstrip(" .\n")
    for left, right in DISPLAYED:
        if text.endswith(right):
            start = text.rfind(left, 0, len(text) - len(right))
            inner = text[start + len(left) : len(text) - len(right)].strip()
            if start >= 0 and inner and "\n" not in inner and len(inner) <= MAX_ANSWER_CHARACTERS:
                return text[:start] + inner
    return tail


def _unmarked(line: str) -> str:
    """Without the marks of bold text, and the italic ones around "answer"."""
    line = re.sub(r"(?<=[$*])!$", "", re.sub(r"`([^`]+)`", r"\1", line))
    line = re.sub(r"(?<![A-Za-z0-9_])(\*{3}|_)([^*_]+)\1(?=\W*$)", r"\2", line)
    return re.sub(rf"\*\*|__|\*(?={HEADING})|(?<=answer)\*|(?<=answer:)\*", "", line, flags=re.I)


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
    text = ROOT_SIGN.sub(_root, answer)
    text = "".join(_sign(character) for character in text)
    text = re.sub(r",\s*\\!\s*(?=\d{3})", ",", text)
    text = re.sub(r"(?<=\d)\\!(?=\d)", " ", text)
    text = text.replace("\\!", "").replace("\\%", "%").replace("\\\n", " ")
    text = re.sub(r"(?<=\d) ?\{ ?, ?\} ?(?=\d{3})", ",", text).replace("{,}", ",")
    text = text.replace("\\lbrace", "\\{").replace("\\rbrace", "\\}")
    text = re.sub(r"(?<=\d)\\,(?=\s*\d{3})\s*", ",", text)
    text = _without_fonts(text)
    text = re.sub(r"\\\\(?=[ ,;:])", r"\\\\ ", text)
    text = re.sub(r"(?<!\\)" + SPACES.pattern, " ", text)
    text = _one_name_each(text)
    text = re.sub(r"\s+", " ", text).strip()
    text = without_delimiters(text)
    text = INNER_DOLLARS.sub(r"\1", text)
    if ELLIPSIS.search(text):
        raise Unreadable("has a final answer that goes on (...)")
    text = _join_thousands(text)
    text = SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    for _ in range(3):  # \frac{\frac12}{3}
        text = BARE_FRACTION.sub(_braced_fraction, text)
    text = BARE_ROOT.sub(r"\\sqrt{\1}", text)
    if not text:
        raise Unreadable("has an empty final answer")
    return text


def _without_fonts(text: str) -> str:
    """Sizes, colours and marks left out, and one upright font."""
    text = SIZES.sub("", SWITCHED.sub(r"\\text{\1}", text))
    for _ in range(3):
        text = WRAPPERS.sub(r"\1", text)
    return FONTS.sub(r"\\text", text)


def _one_name_each(text: str) -> str:
    """The same name for commands, signs and words that mean the same."""
    text = OPTION.sub(r"\1", LOOSE_CHOICE.sub(r"\\text{(\1)} ", text))
    text = re.sub(r"\\big(cup|cap)(?![A-Za-z])", r"\\\1", text)
    text = re.sub(r"\\(?:[dtcs]frac|nicefrac|flatfrac)(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\[dt]binom(?![A-Za-z])", r"\\binom", text)
    text = OVER.sub(
        lambda m: f"\\{'frac' if m[2] == 'over' else 'binom'}{{{m[1]}}}{{{m[3]}}}", text
    )
    text = UNIT_FRACTION.sub(r"\\text{\1/\2}", text)
    text = CHOSEN.sub(lambda m: f"\\binom{{{m[1]}}}{{{m[2] or m[3]}}}", text)
    text = re.sub(r"\\(?:degrees?|deg)(?![A-Za-z])", r"^\\circ ", text)
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}", r"^\\circ ", text)
    text = re.sub(r"\\(?:leqslant|leq)(?![A-Za-z])|<=", r"\\le ", text)
    text = re.sub(r"\\(?:geqslant|geq)(?![A-Za-z])|>=", r"\\ge ", text)
    text = re.sub(r"\\neq(?![A-Za-z])|\\not ?=|(?<=\s)!=", r"\\ne ", text)
    text = re.sub(r"\\langle(?![A-Za-z])", "(", re.sub(r"\\rangle(?![A-Za-z])", ")", text))
    text = re.sub(r"\\[lr]?vert(?![A-Za-z])", "|", text)
    if re.search(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])", text):
        text = re.sub(r"\\(?:lor|vee)(?![A-Za-z])", r"\\text{ or }", text)
        text = re.sub(r"\\(?:land|wedge)(?![A-Za-z])", r"\\text{ and }", text)
    text = re.sub(r"\\colon(?![A-Za-z])", ":", text)
    text = re.sub(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset ", text)
    text = re.sub(r"\\operatorname\*? ?\{ ?([A-Za-z]+) ?\}", _operator, text)
    if "\\text" in text:
        return text
    text = PLAIN_FUNCTION.sub(r"\\\1 ", PLAIN_PI.sub(r"\\pi ", text))
    text = PLAIN_INFINITY.sub(r"\\infty ", text)
    return PLAIN_ROOT.sub(_root, text)


def _operator(match: re.Match[str]) -> str:
    return f"\\{match[1]} " if match[1] in OPERATORS else match[0]


def _root(match: re.Match[str]) -> str:
    return f"\\sqrt{{{next(group for group in match.groups() if group is not None)}}}"


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
    name, *parts = match.groups()
    over, under = (part if part.startswith("{") else f"{{{part}}}" for part in parts)
    return f"\\{name}{over}{under}"
