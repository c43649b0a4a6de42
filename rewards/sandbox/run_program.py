"""Inside the sandbox: defines a program's functions and does with them what it is asked to.

The program shares this process and may do anything to it, so nothing it says is believed: it is
only ever asked for values, and never sees what is expected of them. What is not plain stays here
and passes as a number, by which it can be asked about: generators, objects of the program's
classes.
"""

from __future__ import annotations

import builtins
import io
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CoroutineType, ModuleType
from typing import Any, cast

from rewards.sandbox.channel import Channel
from rewards.sandbox.choice import Step, choose
from rewards.sandbox.literals import BASES, NotPlain, Reference, TooLarge
from rewards.sandbox.objects import Objects, dumps

MAX_PRINTED = 1 << 20
MAX_STACK = 64 << 20  # more is asked for, for deep recursion, than Python now needs for it


def main(init: dict[str, Any]) -> None:
    """`init` holds `readings` (`rewards.sandbox.choice`), `names`, `prints` (whether the tests
    look at what is printed) and `channel` (file numbers to read from and write to)."""
    channel = Channel(*init["channel"])
    silence()
    try:
        steps = choose(init["readings"], init["names"])
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
    threading.stack_size = _stack_size(threading.stack_size)
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
                match self.receive():
                    case ["returned", value]:
                        return value
                    case ["raised", str(name), list() as parts]:
                        raise getattr(builtins, name)(*cast("list[Any]", parts))
                    case request:
                        self._channel.send(self.answer(request))

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


def _call(function: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return function(*arguments, **keywords)


def _await(value: Any) -> Any:
    return _loop().run_until_complete(value)


def _anext(value: Any) -> Any:
    return _loop().run_until_complete(anext(value))


_loops: list[Any] = []


def _loop() -> Any:
    if not _loops:
        import asyncio  # takes longer to load than most programs do to run

        _loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(_loops[0])
    return _loops[0]


def _swapped(value: Any, name: str, other: Any) -> Any:
    return ON_VALUES[name](other, value)


# What can be asked about a value that was passed on as a number, or about a function.
ON_VALUES: dict[str, Callable[..., Any]] = {
    "call": _call, "get": getattr, "set": setattr, "delete": delattr, "item": operator.getitem,
    "set_item": operator.setitem, "delete_item": operator.delitem, "iter": iter, "next": next,
    "reversed": reversed, "len": len, "bool": bool, "str": str, "repr": repr, "format": format,
    "enter": lambda value: value.__enter__(), "exit": lambda value, *r: value.__exit__(*r),
    "await": _await, "anext": _anext, "swapped": _swapped, "hash": hash, "eq": operator.eq,
    "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "contains": lambda value, item: item in value, "add": operator.add, "sub": operator.sub,
    "mul": operator.mul, "truediv": operator.truediv, "floordiv": operator.floordiv,
    "mod": operator.mod, "divmod": divmod, "pow": pow, "matmul": operator.matmul,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift,
    "rshift": operator.rshift, "neg": operator.neg, "pos": operator.pos, "abs": abs,
    "invert": operator.invert, "int": int, "float": float, "complex": complex, "round": round,
    "index": operator.index, "has_instance": lambda kind, value: isinstance(value, kind),
    "has_subclass": lambda kind, other: issubclass(other, kind),
}  # fmt: skip


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
    return lambda size=0: original(min(size, MAX_STACK)) if size else original()


def said_of(error: BaseException) -> str:
    return f"raises {type(error).__name__}"[:200]


def silence() -> None:
    """What the program prints goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
