"""Analyse the text of a programming problem's tests before they run.

The program and its tests run in different processes, and only values pass between them. So the text
of the tests must show two things in advance: which exceptions of the program the tests expect, and
which arguments they read after a call. Tests that cannot be judged in this way are refused with a
reason. So are tests that every program passes.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

IN_PLACE = "in_place"
# Inside an iteration, these exceptions end it, and a test would read no further values.
ENDS_OF_ITERATION = ("StopIteration", "StopAsyncIteration")
MAKES_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_TYPES = ("list", "dict", "set", "copy", "deepcopy", "sorted")
SINGLETONS = (None, True, False, ...)


@dataclass(frozen=True, kw_only=True)
class TestPlan:
    """How to run the tests.

    `tests` is the code to run. In it, `f.in_place(x)` replaces a call `f(x)` whose argument the
    tests read afterwards. `expected` holds the names of the built-in exceptions that may reach the
    tests. The program fails when it raises any other exception.
    """

    __test__ = False

    tests: str
    expected: tuple[str, ...]


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
    _refuse_functions(nodes, callees)
    expected = _expected(nodes)
    marked = [_mark_in_place(block, callees) for block in _blocks(tree)]
    try:
        return TestPlan(tests=ast.unparse(tree) if any(marked) else tests, expected=expected)
    except RecursionError:
        raise ValueError("the tests are nested too deeply") from None


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
    """Refuse tests of identity. A value that passed from one process to another is a new object."""
    for node in nodes:
        if isinstance(node, ast.Compare):
            for operator, side in zip(node.ops, node.comparators, strict=True):
                single = isinstance(side, ast.Constant) and any(side.value is s for s in SINGLETONS)
                if isinstance(operator, ast.Is | ast.IsNot) and not single:
                    raise ValueError("the tests compare the identity of values")


def _refuse_functions(nodes: Sequence[ast.AST], callees: set[str]) -> None:
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef)} - callees
    for node in nodes:
        if isinstance(node, ast.Call) and _callee(node) in callees:
            for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(value, ast.Lambda) or _name(value) in defined:
                    raise ValueError("the tests pass a function of their own to the program")


def _expected(nodes: Sequence[ast.AST]) -> tuple[str, ...]:
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.TryStar):
            raise ValueError("the tests expect groups of exceptions")
        if not isinstance(node, ast.Try) or not node.handlers:
            continue
        kinds = [name for handler in node.handlers for name in _caught(handler)]
        inside = [child for statement in node.body for child in ast.walk(statement)]
        for child in inside:
            if isinstance(child, ast.Assert) and not _always_fails(child):
                raise ValueError("a try of the tests has asserts in it that it may never reach")
            fails = isinstance(child, ast.Assert | ast.Raise)
            if fails and any(issubclass(AssertionError, _built_in(kind)) for kind in kinds):
                raise ValueError("a try of the tests catches its own failure")
        found += kinds
    return tuple(sorted(set(found)))


def _caught(handler: ast.ExceptHandler) -> list[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
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


def _blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                yield block  # type: ignore[misc]


def _mark_in_place(block: list[ast.stmt], callees: set[str]) -> bool:
    """Mark the calls whose value is not used. Returns whether there are any.

    Raises ValueError when a test uses the value of a call and also reads its argument afterwards. A
    program that empties both could pass a test that compares the two.
    """
    mutable: set[str] = set()
    used: set[str] = set()  # mutable arguments of calls whose value is used
    marked = False
    for statement in block:
        calls = [
            node
            for node in ast.walk(statement)
            if isinstance(node, ast.Call) and _callee(node) in callees
        ]
        looked_at = {
            _name(side)
            for node in ast.walk(statement)
            if isinstance(node, ast.Compare)
            for side in (node.left, *node.comparators)
        }
        if isinstance(statement, ast.Assert) and not calls and looked_at & used:
            raise ValueError("the tests look at an argument after a call whose value they use")
        if isinstance(statement, ast.Expr) and calls and statement.value is calls[0]:
            call = calls[0]
            if any(_name(value) for value in call.args):
                call.func = ast.Attribute(value=call.func, attr=IN_PLACE, ctx=ast.Load())
                marked = True
        else:
            used |= {_name(value) for call in calls for value in call.args} & mutable
        if isinstance(statement, ast.Assign):
            targets = {_name(target) for target in statement.targets}
            makes = isinstance(statement.value, MAKES_MUTABLE) or (
                isinstance(statement.value, ast.Call) and _callee(statement.value) in MUTABLE_TYPES
            )
            used -= targets
            mutable = mutable | targets if makes else mutable - targets
    return marked
