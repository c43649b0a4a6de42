"""Inside the sandbox: defines a program's functions and does with them what it is asked to.

The program shares this process and may do anything to it, so nothing it says is believed: it is
only ever asked for values, and never sees what is expected of them. What is not plain stays here
and passes as a number, by which it can be asked about: generators, objects of the program's
classes.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CoroutineType, ModuleType
from typing import Any

from rewards.sandbox.channel import Channel
from rewards.sandbox.choice import Step, choose_steps
from rewards.sandbox.literals import BASES, NotPlain, Reference, TooLarge
from rewards.sandbox.objects import Objects, dumps
from rewards.sandbox.operations import ON_VALUES

MAX_PRINTED = 1 << 20
MAX_STACK = 64 << 20  # more is asked for, for deep recursion, than Python now needs for it


def main(init: dict[str, Any]) -> None:
    """`init` holds `readings` (`rewards.sandbox.choice`), `names`, `prints` (whether the tests
    look at what is printed) and `channel` (file numbers to read from and write to)."""
    channel = Channel(*init["channel"])
    silence()
    try:
        steps = choose_steps(init["readings"], init["names"])
    except BaseException as error:  # SyntaxError, MemoryError, RecursionError, ValueError
        channel.send(dumps(["unreadable", said_of(error)]))
        return
    module = new_module("program")
    try:
        define(steps, module, init["names"])
        missing = [name for name in init["names"] if not callable(module.get(name))]
    except BaseException as error:
        channel.send(dumps(["failed", said_of(error)]))
        return
    channel.send(dumps(["failed", f"does not define {missing[0]}"] if missing else ["ready", ""]))
    served = Served(module, init["names"], channel, prints=init["prints"])
    while not missing:
        channel.send(served.answer(served.receive()))


def new_module(name: str) -> dict[str, Any]:
    """The names of a new module, which pickle and dataclasses find by its own."""
    module = sys.modules[name] = ModuleType(name)
    setattr(threading, "stack_size", _stack_size(threading.stack_size))  # noqa: B010
    return module.__dict__


def define(steps: list[Step], module: dict[str, Any], names: list[str]) -> None:
    """Runs the program. Where it has defined what is asked for, it may go on to what a script
    does: end, or read what nobody has written."""
    for step in steps:
        try:
            exec(step.code, module)
        except (SystemExit, EOFError):
            if not all(callable(_found(name, module)) for name in names):
                raise
        except Exception:
            if step.needed:
                raise
    for name in names:
        module.setdefault(name, _found(name, module))


def _found(name: str, module: dict[str, Any]) -> Any:
    """A function by its name, or LeetCode's form of it: a method of a class Solution."""
    solution = module.get("Solution")
    if name in module or not isinstance(getattr(solution, name, None), Callable):
        return module.get(name)
    return lambda *arguments, **keywords: getattr(solution(), name)(*arguments, **keywords)  # pyright: ignore


class Served:
    """The program's functions, and its values that were passed on as numbers."""

    def __init__(
        self, module: dict[str, Any], names: list[str], channel: Channel, *, prints: bool
    ) -> None:
        self._module = module
        self._channel = channel
        self._classes = tuple(
            value for name in names if isinstance(value := module.get(name), type)
        )
        self._objects = Objects(1, self._other, self._referred, self._base)
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._given: dict[Any, Any] = {}
        self._calling_back = threading.RLock()
        self._printed = io.StringIO() if prints else None
        if self._printed is not None:
            sys.stdout = self._printed

    def receive(self) -> Any:
        return self._objects.loads(self._channel.receive())

    def answer(self, request: list[Any]) -> str:
        """["value", value, printed], ["raised", exception, arguments, what is said of it, printed],
        or ["failed", reason] and ["unjudged", reason], which end it."""
        try:
            name, *operands = request
            request.clear()
            box = [["value", ON_VALUES[name](*operands), self._taken_print()]]
            operands.clear()
            return self._objects.dumps(box)
        except TooLarge as error:
            return dumps(["unjudged", f"returns what is not passed on: {error}"])
        except NotPlain as error:
            return dumps(["failed", f"returns what is not passed on: {error}"])
        except Exception as error:
            return self._raised(error)
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the program's too
            return dumps(["failed", said_of(error)])

    def _raised(self, error: Exception) -> str:
        kind = next(c for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)
        said = [said_of(error), self._taken_print()]
        try:
            return self._objects.dumps([["raised", kind.__name__, list(error.args), *said]])
        except Exception:
            return self._objects.dumps([["raised", kind.__name__, [], *said]])

    def _taken_print(self) -> str:
        if self._printed is None:
            return ""
        printed = self._printed.getvalue()[:MAX_PRINTED]
        self._printed.seek(0)
        self._printed.truncate()
        return printed

    def _call_back(self, number: int, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Calls a function of the tests', and does meanwhile what they ask."""
        with self._calling_back:
            self._channel.send(self._objects.dumps([["callback", number, arguments, keywords]]))
            while True:
                reply: Any = self.receive()
                match reply:
                    case ["returned", value]:
                        return value
                    case ["raised", str(name), list()]:
                        raise getattr(builtins, name)(*reply[2])
                    case _:
                        self._channel.send(self.answer(reply))

    def _other(self, value: Any) -> Any:
        plain = _from_a_library(value)
        if plain is not value:
            return plain
        if isinstance(value, Given):
            return Reference("given", value.number)
        if isinstance(value, GivenIterator):
            return Reference("iterator", value.number)
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        if isinstance(value, CoroutineType):
            return Reference("coroutine", number)
        kind = "async generator" if isinstance(value, AsyncGeneratorType) else "value"
        return Reference(kind, number)

    def _base(self, value: Any) -> type[Any] | None:
        if isinstance(value, self._classes):
            return None
        return next((base for base in BASES if issubclass(type(value), base)), None)

    def _referred(self, kind: str, key: Any) -> Any:
        if kind == "value":
            return self._kept[key]
        if kind == "name":
            return self._module[key]
        if kind == "built-in":
            return getattr(builtins, key)
        if (kind, key) not in self._given:
            make = Given if kind == "given" else GivenIterator
            self._given[kind, key] = make(self._call_back, key)
        return self._given[kind, key]


class Given:
    """A function of the tests'."""

    def __init__(self, call_back: Callable[..., Any], number: int) -> None:
        self._call_back = call_back
        self.number = number
        self.__name__ = "<lambda>"

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._call_back(self.number, list(arguments), keywords)

    def __get__(self, held: Any, kind: Any = None) -> Any:
        return self if held is None else lambda *a, **k: self(held, *a, **k)  # pyright: ignore


class GivenIterator:
    """An iterator of the tests'."""

    def __init__(self, call_back: Callable[..., Any], number: int) -> None:
        self._call_back = call_back
        self.number = number

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._call_back(self.number, [], {})


def _from_a_library(value: Any) -> Any:
    """A number of numpy's or sympy's as Python's, which it is equal to."""
    library = type(value).__module__.partition(".")[0]
    loaded: Any = sys.modules.get(library)
    if library == "numpy" and isinstance(value, loaded.generic):
        return value.item()
    if library == "sympy":
        if isinstance(value, loaded.Integer):
            return int(value)
        if isinstance(value, loaded.Float):
            return float(value)
        if value in (loaded.true, loaded.false):
            return bool(value)
    return value


def _stack_size(original: Callable[..., int]) -> Callable[..., int]:
    def stack_size(size: int = 0) -> int:
        return original(min(size, MAX_STACK))

    return stack_size


def said_of(error: BaseException) -> str:
    return f"raises {type(error).__name__}"[:200]


def silence() -> None:
    """What the program prints goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
