"""Analyse the text of a programming problem's tests before they run.

The program and its tests run in different processes. So the text of the tests must show three
things in advance: which exceptions of the program the tests expect, whether they read what the
program prints, and whether they compare what it returns with its arguments. Tests that cannot be
judged in this way are refused with a reason. So are tests that every program passes.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from data.tasks.code_arguments import compares_arguments

IN_PLACE = "in_place"
# Inside an iteration, these exceptions end it, and a test would read no further values.
ENDS_OF_ITERATION = ("StopIteration", "StopAsyncIteration")
# Calls in which the first arguments are exceptions that may come, and how many of them.
EXPECTING = {"assertRaises": 1, "assertRaisesRegex": 1, "suppress": None}
CLASS_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")
SINGLETONS = (None, True, False, ...)


@dataclass(frozen=True, kw_only=True)
class TestPlan:
    """How to run the tests.

    - `tests`: the code to run.
    - `by_value`: the code of a second run with copies of the arguments, or null. It is needed when
      the tests compare an argument with what the program returns, and the program changed that
      argument. In it, `f.in_place(x)` replaces a call `f(x)` whose value is not used: such a call
      is made for what it does to its argument.
    - `expected`: the names of the built-in exceptions that may reach the tests. The program fails
      when it raises any other exception.
    - `prints`: whether the tests read what the program prints.
    - `classes`: those of the names that are spelled as names of classes are.
    """

    __test__ = False

    tests: str
    by_value: str | None
    expected: tuple[str, ...]
    prints: bool
    classes: tuple[str, ...]


def plan_tests(tests: str, setup: str, names: Sequence[str], check: str | None) -> TestPlan:
    """The plan for tests. Raises ValueError for tests that cannot be judged, with the reason,
    without the place."""
    try:
        tree, before = ast.parse(tests), ast.parse(setup)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the tests are not valid Python: {error}") from None
    _refuse_imports([*ast.walk(tree), *ast.walk(before)])
    callees = {*names, *_parameters(tree, check)}
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Name) and node.id in callees for node in nodes):
        raise ValueError("the tests never call the program")
    _refuse_identity(nodes)
    expected = _expected(nodes)
    by_value: str | None = None
    try:
        if compares_arguments(tree, callees):
            _mark_in_place(tree, callees)
            by_value = ast.unparse(tree)
    except RecursionError:
        raise ValueError("the tests are nested too deeply") from None
    return TestPlan(
        tests=tests,
        by_value=by_value,
        expected=expected,
        prints="redirect_stdout" in tests or "stdout" in setup + tests,
        classes=tuple(name for name in names if CLASS_NAME.fullmatch(name)),
    )


def _parameters(tree: ast.Module, check: str | None) -> list[str]:
    """The name of the parameter through which the function `check` gets the program's function."""
    if check is None:
        return []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == check and node.args.args:
            return [node.args.args[0].arg]
    raise ValueError(f"the tests define no function {check} that takes the program's function")


def _refuse_imports(nodes: Sequence[ast.AST]) -> None:
    for node in nodes:
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "."]
        for module in modules:
            if module.partition(".")[0] not in sys.stdlib_module_names:
                raise ValueError(f"the tests import {module}, which is not in Python's library")


def _refuse_identity(nodes: Sequence[ast.AST]) -> None:
    """Refuse tests of identity. A value that passed from one process to another is a new object.
    Types are the same."""
    for node in nodes:
        if isinstance(node, ast.Compare):
            of_types = isinstance(node.left, ast.Call) and _callee(node.left) == "type"
            for operator, side in zip(node.ops, node.comparators, strict=True):
                single = isinstance(side, ast.Constant) and any(side.value is s for s in SINGLETONS)
                if isinstance(operator, ast.Is | ast.IsNot) and not (single or of_types):
                    raise ValueError("the tests compare the identity of values")


def _expected(nodes: Sequence[ast.AST]) -> tuple[str, ...]:
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.TryStar):
            raise ValueError("the tests expect groups of exceptions")
        if isinstance(node, ast.Try) and node.handlers:
            kinds = [name for handler in node.handlers for name in _caught(handler.type)]
            _refuse_unreached(node.body, kinds)
            found += kinds
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items]
            for call in calls:
                _refuse_unreached(node.body, _awaited_by(call))
        found += _awaited_by(node)
    return tuple(sorted(set(found)))


def _refuse_unreached(body: Sequence[ast.stmt], kinds: Sequence[str]) -> None:
    """In a block that an exception may end, which is then caught."""
    for child in [child for statement in body for child in ast.walk(statement)] if kinds else []:
        if isinstance(child, ast.Assert) and not _always_fails(child):
            raise ValueError("a try of the tests has asserts in it that it may never reach")
        fails = isinstance(child, ast.Assert | ast.Raise)
        if fails and any(issubclass(AssertionError, _built_in(kind)) for kind in kinds):
            raise ValueError("a try of the tests catches its own failure")


def _awaited_by(node: ast.AST) -> list[str]:
    """The exceptions that `assertRaises(ValueError, ...)` and its like let come."""
    if not isinstance(node, ast.Call):
        return []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
    if name not in EXPECTING:
        return []
    return [kind for argument in node.args[: EXPECTING[name]] for kind in _caught(argument)]


def _caught(caught: ast.expr | None) -> list[str]:
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    names = ["Exception" if kind is None else _name(kind) for kind in kinds]
    for name in names:
        kind = _built_in(name)
        if not issubclass(kind, Exception) or name in ENDS_OF_ITERATION:
            raise ValueError(f"the tests expect {name}, which is not passed on to them")
    return names


def _built_in(name: str) -> type[BaseException]:
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise ValueError(f"the tests expect {name or 'an exception'}, which is not built in")
    return kind


def _always_fails(node: ast.Assert) -> bool:
    return isinstance(node.test, ast.Constant) and not node.test.value


def _callee(node: ast.Call) -> str:
    return _name(node.func)


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _mark_in_place(tree: ast.Module, callees: set[str]) -> None:
    for node in ast.walk(tree):
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and _callee(call) in callees:
            call.func = ast.Attribute(value=call.func, attr=IN_PLACE, ctx=ast.Load())
