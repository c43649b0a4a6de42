"""Where a program stands in a solution: the ways to read it, the likeliest first.

The last fenced block of Python that defines what is asked for; else the last block, as the body of
the function whose head is given; else what stands in other fences, in backticks, between tags; and
without any of these all of it, as a whole program or as a completion of the head, cut where it goes
on to something else. Nothing is parsed here: `rewards.sandbox.choice` takes the first reading that
is Python. A fence that is not ended goes on to the end; one that ends too early, in the program's
own text, is read again as ending later.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

# A line that opens or ends a block, after a list's mark or not: what stands before the fence, the
# fence, what is said of the block.
FENCE = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(`{3,}|~{3,})([^`]*)")
LANGUAGE = re.compile(r"[\s{.]*(\w*)")
LANGUAGES = ("", "python", "python3", "py", "py3")
INLINE = re.compile(r"(`{1,3})(?:python3?|py)?[ \t]*([^`\n][^`]*)\1")
TAGGED = re.compile(
    r"(?:\[(?:BEGIN|PYTHON)\]|<(?:answer|code|python)>)(.*?)"
    r"(?:\[(?:DONE|END|/PYTHON)\]|</(?:answer|code|python)>|\Z)",
    re.S,
)
ENDED = re.compile(r"^\[(?:DONE|END|/PYTHON)\]|^</(?:answer|code|python)>", re.M)
# Where a base model's completion of a function goes on to something else (2107.03374, section 3).
STOPS = re.compile(r"\n(?:class|def|#|if|print|@|```)")
MAX_ENDS = 4  # of one block, and of one completion
MAX_BLOCKS = 32
MAX_READINGS = 60
MAX_CHARACTERS = 1 << 21  # of all readings


@dataclass(frozen=True, kw_only=True)
class Reading:
    """`program`, after `before` has run; `others` are blocks that may define what it lacks; `rest`
    says that words may follow it, and `least` how many of its lines are then not words."""

    program: str
    before: str = ""
    others: tuple[str, ...] = ()
    rest: bool = False
    least: int = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """What stands between fences, as far left as its fence is; `longer` if it ended later."""

    language: str
    text: str
    ended: bool
    longer: tuple[str, ...] = ()

    @property
    def is_python(self) -> bool:
        return self.language in LANGUAGES


def readings(solution: str, prefix: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """As `rewards.sandbox.choice.choose_steps` takes them. `names` is empty for a whole program."""
    text = solution.encode("utf-8", "replace").decode()  # no file holds a lone surrogate
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    found: dict[Reading, None] = {}
    characters = 0
    for reading in _readings(text, prefix, names):
        characters += sum(map(len, (reading.program, reading.before, *reading.others)))
        if characters > MAX_CHARACTERS or len(found) == MAX_READINGS:
            break
        found[reading] = None
    return [asdict(reading) for reading in found]


def _readings(text: str, prefix: str, names: Sequence[str]) -> Iterator[Reading]:
    blocks = fenced_blocks(text)
    python = [block for block in blocks if block.is_python]
    defines = _definition(names)
    for block in reversed([b for b in python if _defined_in(b, defines)]):
        yield from _whole(block, prefix, python)
    if any(block.text.strip() for block in python):
        for block in reversed(python):
            yield from _bodies(block.text, prefix)
        if names and not any(_defined_in(block, defines) for block in python):
            yield from _elsewhere(text, prefix, defines, blocks)
        return
    yield from _elsewhere(text, prefix, defines, blocks)
    for inner in [*reversed(TAGGED.findall(text)), ENDED.split(text)[0], text]:
        yield from _bare(inner, prefix, defines)


def _definition(names: Sequence[str]) -> re.Pattern[str]:
    if not names:
        return re.compile("")
    name = re.escape(names[0])
    return re.compile(
        rf"^[ \t]*(?:(?:async[ ]+)?def|class)[ ]+{name}\b|^[ \t]*{name}[ ]*(?::[^=\n]*)?=[^=]", re.M
    )


def _defined_in(block: Block, defines: re.Pattern[str]) -> bool:
    return any(defines.search(text) for text in (block.text, *block.longer))


def _whole(block: Block, prefix: str, blocks: Sequence[Block]) -> Iterator[Reading]:
    before, others = ended(prefix), tuple(b.text for b in blocks if b is not block)[::-1]
    for text in (block.text, *block.longer):
        for program in dict.fromkeys((textwrap.dedent(text), text)):
            yield Reading(program=program, before=before, others=others)
    if not block.ended:
        for text in (block.text.partition("```")[0], block.text):
            yield Reading(program=text, before=before, others=others, rest=True)


def _bodies(text: str, prefix: str) -> Iterator[Reading]:
    """Readings of the body of the function whose head is `prefix`: as it is, or where it begins
    without an indent, with its first line or all of it indented."""
    head, least = _with_line_end(prefix), len(prefix.splitlines()) + 1
    forms = [text]
    first = next((line for line in text.split("\n") if line.strip()), "")
    if prefix and first and not first[0].isspace():
        found = re.search(r"([ \t]*)pass\n\Z", ended(prefix))
        indent = found[1] if found else "    "
        forms = [indent + text.lstrip(), textwrap.indent(text, indent)]
    for form in forms:
        stops = [stop.start() for stop in islice(STOPS.finditer(form), MAX_ENDS)]
        for end in [*stops, len(form)]:
            if form[:end].strip():
                yield Reading(program=head + form[:end])
    for form in forms if prefix and first else []:
        yield Reading(program=head + form, rest=True, least=least)


def _elsewhere(
    text: str, prefix: str, defines: re.Pattern[str], blocks: Sequence[Block]
) -> Iterator[Reading]:
    """Blocks of what is called another language, and code in backticks, that define it."""
    for block in reversed([b for b in blocks if not b.is_python and _defined_in(b, defines)]):
        yield from _whole(block, prefix, [])
    for _, inner in reversed(INLINE.findall(text)):
        if defines.search(inner) and defines.pattern:
            yield Reading(program=inner, before=ended(prefix))


def _bare(text: str, prefix: str, defines: re.Pattern[str]) -> Iterator[Reading]:
    """Readings of text without fences."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    completes = bool(prefix) and (first[:1].isspace() or not defines.search(text))
    if completes:
        yield from _bodies(text, prefix)
    if not prefix or defines.search(text):
        for rest in (False, True):
            yield Reading(program=text, before=ended(prefix), rest=rest)
    if prefix and not completes:
        yield from _bodies(text, prefix)


def fenced_blocks(text: str) -> list[Block]:
    """What stands in fences, the last `MAX_BLOCKS` of it. A fence that names a language begins a
    block, even inside one that was not ended."""
    lines = text.split("\n")
    spans: list[Span] = []
    begun, fence, indent, language = -1, "", 0, ""
    for number, line in enumerate(lines):
        found = FENCE.fullmatch(line)
        ends = bool(fence) and line.lstrip(" \t").startswith(fence)
        begins = found is not None and (not fence or (ends and found[3][:1].isalpha()))
        if ends:
            spans.append(Span(begun, number, fence, indent, language))
        if found is not None and begins:
            begun, fence, indent = number, found[2], len(found[1])
            named = LANGUAGE.match(found[3])
            language = named[1].lower() if named else ""
        elif ends:
            fence = ""
    if fence:
        spans.append(Span(begun, len(lines), fence, indent, language))
    return [_block(lines, span) for span in spans[-MAX_BLOCKS:]]


class Span(NamedTuple):
    """Which lines a block has: those after `begun` and before `end`."""

    begun: int
    end: int
    fence: str
    indent: int
    language: str


def _block(lines: list[str], span: Span) -> Block:
    def text(end: int) -> str:
        inside = lines[span.begun + 1 : end]
        return "".join(line[min(_margin(line), span.indent) :] + "\n" for line in inside)

    rest = range(span.end + 1, len(lines))
    later = (number for number in rest if lines[number].lstrip(" \t").startswith(span.fence))
    longer = [text(number) for number in islice(later, MAX_ENDS)]
    return Block(
        language=span.language,
        text=text(span.end),
        ended=span.end < len(lines),
        longer=tuple(longer),
    )


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _with_line_end(code: str) -> str:
    return code if code.endswith("\n") or not code else code + "\n"


@lru_cache(maxsize=1024)
def ended(prefix: str) -> str:
    """The head of a function with a statement for its body, indented as the head's own last lines
    are; '' for ''."""
    if not prefix:
        return ""
    lines = [line for line in reversed(prefix.splitlines()) if line.strip()]
    indents = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines]
    for indent in dict.fromkeys([*indents[:1], "    ", *indents]):
        program = f"{_with_line_end(prefix)}{indent}pass\n"
        try:
            compile(program, "<prefix>", "exec", flags=ast.PyCF_ONLY_AST)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return program
    return f"{_with_line_end(prefix)}    pass\n"
