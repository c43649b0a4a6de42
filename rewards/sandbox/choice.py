"""Inside the sandbox: which of the readings of a solution is the program.

A solution is text, in which a program stands in more than one way: as a block between fences, as
the rest of a function whose head is given, between words. Each way is a reading: what precedes the
program, the program, and other blocks of the solution's. The first reading that is Python and
defines what is asked for is the program. It is chosen here, since text that nobody has read is
not parsed anywhere else.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any, NamedTuple

MAX_CUTS = 8
ODD_SPACES = re.compile(r"^[ \t]*[\u00a0\u2000-\u200a\u202f\u3000][\s\u00a0]*", re.M)
# What LeetCode gives its programs.
LEETCODE = (
    "import bisect, collections, copy, datetime, functools, heapq, itertools, json, math\n"
    "import operator, random, re, statistics, string, sys\nfrom bisect import *\n"
    "from collections import *\nfrom copy import *\nfrom functools import *\n"
    "from heapq import *\nfrom itertools import *\nfrom math import *\nfrom typing import *\n"
    "pow = __import__('builtins').pow\n"
)


class Step(NamedTuple):
    """A part of the program to be run, one after the other."""

    code: CodeType
    needed: bool  # else an exception of its own does not fail the program


def choose_steps(readings: Sequence[dict[str, Any]], names: Sequence[str]) -> list[Step]:
    """A reading is a dict of `before`, `program`, `others` (blocks that may define what it lacks),
    `rest` (whether words may follow the program) and `least` (lines that it has then). Raises
    SyntaxError and its like where none is Python."""
    first_error: BaseException | None = None
    readable: list[Step] | None = None
    for reading in readings:
        for text in _spellings(reading["program"]):
            try:
                tree, code = _longest(text, least=reading["least"] if reading["rest"] else None)
                before = _tree(reading["before"])
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                first_error = first_error or error
                continue
            steps = [*_prelude(tree), *_compiled(before.body, needed=True)]
            steps += _helpers(tree, before, reading["others"])
            steps.append(Step(code, needed=True))
            defined = _defined(tree) | _methods(tree)
            if set(names[:1]) <= defined and set(names) <= defined | _defined(before):
                return steps
            readable = readable or steps
            break
    if readable is not None:
        return readable
    raise first_error or SyntaxError("no program")


def _spellings(program: str) -> Iterator[str]:
    yield program
    spaces = ODD_SPACES.sub(lambda found: " " * len(found[0]), program)
    if spaces != program:
        yield spaces


def _longest(text: str, *, least: int | None) -> tuple[ast.Module, CodeType]:
    """All of it, or, where words may follow it, what precedes the line that is no Python."""
    for _ in range(MAX_CUTS):
        try:
            return _tree(text), compile(text, "<program>", "exec", dont_inherit=True)
        except SyntaxError as error:
            line = (error.lineno or 0) - 1
            if least is None or line < least:
                raise
            text = "".join(text.splitlines(keepends=True)[:line])
    return _tree(text), compile(text, "<program>", "exec", dont_inherit=True)


def _tree(text: str) -> ast.Module:
    return ast.parse(text, "<program>")


def _compiled(nodes: Sequence[ast.stmt], *, needed: bool) -> list[Step]:
    tree = ast.Module(list(nodes), [])
    return [Step(compile(tree, "<program>", "exec", dont_inherit=True), needed)] if nodes else []


def _prelude(tree: ast.Module) -> list[Step]:
    solution = any(isinstance(n, ast.ClassDef) and n.name == "Solution" for n in tree.body)
    return _compiled(_tree(LEETCODE).body, needed=True) if solution else []


def _helpers(tree: ast.Module, before: ast.Module, others: Sequence[str]) -> list[Step]:
    """The definitions of other blocks that the program names and does not have."""
    lacking = _loaded(tree) - _stored(tree) - _defined(before) - set(dir(builtins))
    steps: list[Step] = []
    for other in others if lacking else ():
        try:
            block = _tree(other)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if lacking & _defined(block):
            for node in block.body:
                if isinstance(node, DEFINITIONS):
                    steps += _compiled([node], needed=False)
    return steps


DEFINITIONS = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign,
    ast.AnnAssign,
)  # fmt: skip


def _loaded(tree: ast.AST) -> set[str]:
    nodes = ast.walk(tree)
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _stored(tree: ast.AST) -> set[str]:
    """All names that are given a value anywhere."""
    found = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
    return found


def _defined(tree: ast.Module) -> set[str]:
    """The names that a program's own lines give a value, those in its functions left out."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        else:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.add(node.id)
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _methods(tree: ast.Module) -> set[str]:
    return {
        method.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Solution"
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    }
