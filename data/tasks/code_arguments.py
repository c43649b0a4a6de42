"""Whether tests compare what a program returns with the arguments that it was given.

`assert f(x) == sorted(x)` means the x that was given. In Python it also passes for a program that
empties x and returns it. So where a comparison has the program's value on one side and an argument
of its on the other, and no other comparison says what the argument holds afterwards, the tests run
once more with copies of the arguments, if the program changed these.

Names are followed through assignments and loops, wherever they stand; to follow one too many costs
a second run of a program that changes its arguments, no more.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

COUNTS = ("range",)  # what it gives has to do with how many there are alone


def compares_arguments(tree: ast.Module, callees: set[str]) -> bool:
    flow = _Flow(tree, callees)
    suspected: set[str] = set()
    for sides in _comparisons(tree, callees):
        for side in sides:
            if not flow.returned(side):
                continue
            for other in sides:
                if other is not side:
                    suspected |= flow.arguments(other)
    return bool(suspected - flow.pinned(tree, callees))


class _Flow:
    """Which names stand for what the program returned, and which for its arguments."""

    def __init__(self, tree: ast.Module, callees: set[str]) -> None:
        self._callees = callees
        passed = {
            name
            for call in _calls(tree, callees)
            for value in [*call.args, *(keyword.value for keyword in call.keywords)]
            for name in _names(value, callees)
        }
        pairs = list(_assignments(tree))
        self._returned = self._closed(
            set(), [(t, {*_names(v, set()), *_marks(v, callees)}) for t, v in pairs], {"()"}
        )
        outside = [(t, _names(v, callees)) for t, v in pairs]
        # An argument's other names are on either side of an assignment.
        both = [*outside, *(({n}, t) for t, names in outside for n in names)]
        self._arguments = self._closed(passed, both, set()) - callees

    @staticmethod
    def _closed(
        found: set[str], pairs: list[tuple[set[str], set[str]]], marks: set[str]
    ) -> set[str]:
        while True:
            more = {n for targets, names in pairs if names & (found | marks) for n in targets}
            if more <= found:
                return found
            found = found | more

    def returned(self, node: ast.expr) -> bool:
        return bool(_calls(node, self._callees)) or bool(_names(node, set()) & self._returned)

    def arguments(self, node: ast.expr) -> set[str]:
        return _names(node, self._callees) & self._arguments

    def pinned(self, tree: ast.Module, callees: set[str]) -> set[str]:
        """Arguments that are compared with what has to do with neither."""
        found: set[str] = set()
        for sides in _comparisons(tree, callees):
            for side in sides:
                if any(
                    not self.returned(other) and not self.arguments(other)
                    for other in sides
                    if other is not side
                ):
                    found |= self.arguments(side)
        return found


def _comparisons(tree: ast.Module, callees: set[str]) -> Iterator[list[ast.expr]]:
    """The sides of comparisons, and the arguments of functions that are not the program's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and not _is_call_of(node, callees) and node.args:
            yield [*node.args, *(keyword.value for keyword in node.keywords)]


def _assignments(tree: ast.Module) -> Iterator[tuple[set[str], ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield {name for target in node.targets for name in _names(target, set())}, node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value:
            yield _names(node.target, set()), node.value
        elif isinstance(node, ast.For | ast.comprehension) and not _counts(node.iter):
            yield _names(node.target, set()), node.iter


def _counts(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in COUNTS


def _calls(node: ast.AST, callees: set[str]) -> list[ast.Call]:
    found = [child for child in ast.walk(node) if isinstance(child, ast.Call)]
    return [call for call in found if _is_call_of(call, callees)]


def _marks(node: ast.AST, callees: set[str]) -> set[str]:
    return {"()"} if _calls(node, callees) else set()


def _is_call_of(node: ast.Call, callees: set[str]) -> bool:
    """A call of a function of the program's, or of a method of its objects."""
    function = node.func
    while isinstance(function, ast.Attribute):
        function = function.value
        if isinstance(function, ast.Call):
            function = function.func
    return isinstance(function, ast.Name) and function.id in callees


def _names(node: ast.AST, callees: set[str]) -> set[str]:
    """The names in an expression, but those that only say which part of something is meant, and
    those in calls of the program's."""
    found: set[str] = set()
    waiting: list[ast.AST] = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Subscript):
            waiting.append(node.value)
        elif isinstance(node, ast.Call) and (_is_call_of(node, callees) or _counts(node)):
            continue
        elif isinstance(node, ast.Call):
            waiting += [*node.args, *(keyword.value for keyword in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                waiting.append(node.func.value)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return found
