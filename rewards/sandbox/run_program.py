"""Inside the sandbox: defines a program's functions and does with them what it is asked to.

The program shares this process and may do anything to it, so nothing it says is believed: it is
only ever asked for values, and never sees what is expected of them. What is not plain stays here
and passes as a number, by which it can be asked about: generators, objects of the program's
classes.
"""

from __future__ import annotations

import builtins
import operator
import os
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

from rewards.sandbox.channel import Channel
from rewards.sandbox.literals import Handle, NotPlain, dumps, loads

# What a value of a subclass counts as, the first that fits: a named tuple is a tuple.
BASES: tuple[type[Any], ...] = (
    int, float, complex, str, bytes, bytearray, OrderedDict, Counter, dict, list, tuple, set,
    frozenset, deque,
)  # fmt: skip


def main(init: dict[str, Any]) -> None:
    """`init` holds `program`, `names` and `channel` (file numbers to read from and write to)."""
    channel = Channel(*init["channel"])
    _silence()
    namespace: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    try:
        code = compile(init["program"], "<program>", "exec")
    except BaseException as error:  # SyntaxError, MemoryError, RecursionError, ValueError
        channel.send(dumps(["unreadable", _said(error)]))
        return
    try:
        exec(code, namespace)
        missing = [name for name in init["names"] if not callable(namespace.get(name))]
    except BaseException as error:
        channel.send(dumps(["failed", _said(error)]))
        return
    channel.send(dumps(["failed", f"does not define {missing[0]}"] if missing else ["ready", ""]))
    served = Served(namespace, init["names"])
    while not missing:
        channel.send(served.answer(channel.receive()))


class Served:
    """The program's functions, and its values that were passed on as numbers."""

    def __init__(self, namespace: dict[str, Any], names: list[str]) -> None:
        self._namespace = namespace
        self._classes = tuple(
            value for name in names if isinstance(value := namespace.get(name), type)
        )
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}

    def answer(self, line: bytes) -> str:
        """["value", value], ["raised", exception, arguments, what is said of it] or
        ["failed", reason]."""
        asked, *operands = loads(line, self._kept.__getitem__)
        try:
            operation = ON_VALUES.get(asked) or getattr(self, asked)
            return dumps(["value", operation(*operands)], self._other)
        except NotPlain as error:
            return dumps(["failed", f"returns what is not passed on: {error}"])
        except Exception as error:
            return _raised(error)
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the program's too
            return dumps(["failed", _said(error)])

    def call(self, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        return self._namespace[name](*arguments, **keywords)

    def call_in_place(self, name: str, arguments: list[Any], keywords: dict[str, Any]) -> list[Any]:
        """The value, and the arguments as they are afterwards."""
        return [self._namespace[name](*arguments, **keywords), arguments, keywords]

    def call_value(self, value: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        return value(*arguments, **keywords)

    def member(self, name: str, attribute: str) -> Any:
        return getattr(self._namespace[name], attribute)

    def _other(self, value: Any) -> Any:
        if not isinstance(value, self._classes):
            for base in BASES:
                if isinstance(value, base):
                    plain = base(value)
                    if type(plain) is base:
                        return plain
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        return Handle(number)


# What can be asked about a value that was passed on as a number.
ON_VALUES: dict[str, Callable[..., Any]] = {
    "get": getattr, "set": setattr, "item": operator.getitem, "set_item": operator.setitem,
    "iter": iter, "next": next, "len": len, "bool": bool, "str": str, "repr": repr,
}  # fmt: skip


def _raised(error: Exception) -> str:
    kind = next(c for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)
    said = ["raised", kind.__name__]
    try:
        return dumps([*said, list(error.args), _said(error)])
    except Exception:
        return dumps([*said, [], _said(error)])


def _said(error: BaseException) -> str:
    return f"raises {type(error).__name__}"[:200]


def _silence() -> None:
    """What the program prints goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
