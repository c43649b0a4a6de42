"""A program's functions and values as a test sees them, while they are in another process.

What a test compares are plain values. A value that stays with the program is no plain value's
equal, whatever its class says, since its `__eq__` would be the program's word; two of them are not
compared at all. Objects of a class that the tests name are another matter: its methods are what is
asked for, so its operators and comparisons are believed, of objects that the tests had it make.
"""

from __future__ import annotations

import builtins
import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from rewards.sandbox.channel import Channel, ChannelClosed
from rewards.sandbox.literals import NotPlain, Reference
from rewards.sandbox.objects import Objects

END_OF_ITERATION = (StopIteration, StopAsyncIteration)


class ProgramFailed(BaseException):
    """The program has no answer. Not an `Exception`, so that no test can mistake it for one that
    it expects."""


class TestsBroken(BaseException):
    """A test does what cannot be done from another process; the message says what."""

    __test__ = False


class Unjudged(BaseException):
    """The program returns what cannot be passed on."""


class Remote:
    """The other process. Exceptions of the program's reach the tests where these expect them
    (`expected` names those built into Python), else they are a ProgramFailed. `by_value`: the
    program's functions get copies of their arguments."""

    def __init__(self, channel: Channel, expected: Sequence[str], *, by_value: bool) -> None:
        self._channel = channel
        self._expected = tuple(getattr(builtins, name) for name in expected)
        self._objects = Objects(0, self._other, self._referred)
        self._given: list[Any] = []
        self._given_numbers: dict[int, int] = {}
        self.by_value = by_value
        self.calls = 0

    @property
    def changed_arguments(self) -> bool:
        """Whether the program has changed an object that the tests made."""
        return self._objects.changed

    def ask(
        self,
        operation: str,
        *operands: Any,
        ends: type[Exception] | None = None,
        own: bool = False,
    ) -> Any:
        """`ends` is an exception with which the operation may say that there is nothing more;
        `own` whether what comes back is the work of a class that the tests name."""
        self.calls += 1
        reply: Any = self._exchange([operation, *operands])
        while True:
            match reply:
                case ["value", value, str(printed)]:
                    sys.stdout.write(printed)
                    return Own(value) if own and type(value) is Value else value
                case ["raised", str(name), list(), str(said), str(printed)]:
                    sys.stdout.write(printed)
                    raise self._exception(name, cast("list[Any]", reply[2]), said, ends)
                case ["callback", int(number), list(), dict()] if 0 <= number < len(self._given):
                    reply = self._exchange(self._called_back(number, reply[2], reply[3]))
                case ["failed", str(said)]:
                    raise ProgramFailed(said)
                case ["unjudged", str(said)]:
                    raise Unjudged(said)
                case _:
                    raise ProgramFailed("tampers with its answers")

    def _exchange(self, message: list[Any]) -> Any:
        try:
            text = self._objects.dumps([message])
        except NotPlain as error:
            raise TestsBroken(f"pass a value that is not passed on: {error}") from error
        try:
            self._channel.send(text)
            return self._objects.loads(self._channel.receive())
        except ChannelClosed as error:
            raise ProgramFailed("ends before it answers") from error
        except NotPlain as error:
            raise ProgramFailed(f"tampers with its answers: {error}") from error

    def _called_back(self, number: int, arguments: list[Any], keywords: dict[Any, Any]) -> Any:
        """Calls a function of the tests' for the program. What fails a test fails it here too:
        the program is not told, and cannot hide it."""
        try:
            return ["returned", self._given[number](*arguments, **keywords)]
        except AssertionError:
            raise
        except Exception as error:
            kind = next(k for k in type(error).__mro__ if getattr(builtins, k.__name__, None) is k)
            return ["raised", kind.__name__, [_plain_or_said(part) for part in error.args]]

    def _exception(
        self, name: str, arguments: list[Any], said: str, ends: type[Exception] | None
    ) -> BaseException:
        kind = getattr(builtins, name, None)
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            return ProgramFailed(said)
        if kind is ends:
            return kind()
        if kind in END_OF_ITERATION or not issubclass(kind, self._expected):
            return ProgramFailed(said)
        try:
            return kind(*arguments)
        except Exception:  # arguments that this exception does not take
            return ProgramFailed(said)

    def _other(self, value: Any) -> Any:
        """What passes in the place of a value that is not plain."""
        if isinstance(value, Value):
            return object.__getattribute__(value, "_reference")
        kind = cast("type[Any]", type(value))
        if callable(value) and not isinstance(value, type):
            name = getattr(value, "__name__", "")
            built_in = getattr(builtins, name, None) is value
            return Reference("built-in", name) if built_in else self._give(value)
        following: Any = getattr(value, "__next__", None)
        if following is not None:
            return Reference("iterator", self._give(following).key)
        raise NotPlain(f"a value of type {kind.__name__} is not plain")

    def _give(self, function: Callable[..., Any]) -> Reference:
        number = self._given_numbers.setdefault(id(function), len(self._given))
        if number == len(self._given):
            self._given.append(function)
        return Reference("given", number)

    def _referred(self, kind: str, key: Any) -> Any:
        if type(key) is not int or key < 0:
            raise NotPlain("refers to nothing")
        if kind in ("given", "iterator"):
            return self._given[key] if kind == "given" else self._given[key].__self__
        value = Value(self, Reference("value", key))
        if kind == "coroutine":
            return _awaited(self, value)
        if kind == "async generator":
            return _iterated(self, value)
        if kind != "value":
            raise NotPlain("refers to nothing")
        return value


class Value:
    """A value that stays with the program."""

    def __init__(self, remote: Remote, reference: Reference) -> None:
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_reference", reference)

    def _ask(self, operation: str, *operands: Any, ends: type[Exception] | None = None) -> Any:
        return self._remote.ask(operation, self, *operands, ends=ends, own=isinstance(self, Own))

    def __copy__(self) -> Value:
        return self

    def __deepcopy__(self, memo: Any) -> Value:
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Own):
            return other == self
        if isinstance(other, Value):
            raise TestsBroken("compare two objects that the program alone could compare")
        return False

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_reference").key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._ask("get", name, ends=AttributeError)

    def __setattr__(self, name: str, new: Any) -> None:
        self._ask("set", name, new)

    def __delattr__(self, name: str) -> None:
        self._ask("delete", name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._ask("call", list(arguments), keywords)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __setitem__(self, key: Any, new: Any) -> None:
        self._ask("set_item", key, new)

    def __delitem__(self, key: Any) -> None:
        self._ask("delete_item", key)

    def __iter__(self) -> Any:
        iterator = self._ask("iter", ends=TypeError)
        return iterator if isinstance(iterator, Value) else iter(iterator)

    def __next__(self) -> Any:
        return self._ask("next", ends=StopIteration)

    def __reversed__(self) -> Any:
        return self._ask("reversed", ends=TypeError)

    def __len__(self) -> int:
        return _exactly(int, self._ask("len", ends=TypeError))

    def __bool__(self) -> bool:
        return _exactly(bool, self._ask("bool"))

    def __str__(self) -> str:
        return _exactly(str, self._ask("str"))

    def __repr__(self) -> str:
        return _exactly(str, self._ask("repr"))

    def __format__(self, form: str) -> str:
        return _exactly(str, self._ask("format", form))

    def __enter__(self) -> Any:
        return self._ask("enter")

    def __exit__(self, *raised: object) -> Any:
        if raised[0] is not None:
            raise TestsBroken("raise an exception in a block that an object of the program's has")
        return self._ask("exit", None, None, None)


class Own(Value):
    """An object of a class that the tests name, made for them: its operators are believed."""

    def __init__(self, value: Value) -> None:
        remote, reference = (
            object.__getattribute__(value, name) for name in ("_remote", "_reference")
        )
        super().__init__(remote, reference)

    def __eq__(self, other: object) -> Any:
        return self._ask("eq", other)

    def __ne__(self, other: object) -> Any:
        return self._ask("ne", other)

    def __hash__(self) -> int:
        return _exactly(int, self._ask("hash"))

    def __contains__(self, item: Any) -> bool:
        return _exactly(bool, self._ask("contains", item))


def _operator(name: str, *, swapped: bool = False) -> Any:
    def operate(self: Own, *others: Any) -> Any:
        return self._ask("swapped" if swapped else name, *([name] if swapped else []), *others)  # pyright: ignore

    return operate


BINARY = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul", "and", "or",
    "xor", "lshift", "rshift",
)  # fmt: skip
UNARY = ("neg", "pos", "abs", "invert", "int", "float", "complex", "round", "index")
for _name in (*BINARY, *UNARY, "lt", "le", "gt", "ge"):
    setattr(Own, f"__{_name}__", _operator(_name))
for _name in BINARY:
    setattr(Own, f"__r{_name}__", _operator(_name, swapped=True))


class Function(Value):
    """One of the program's functions or classes, by its name."""

    def __init__(self, remote: Remote, name: str, *, is_class: bool) -> None:
        super().__init__(remote, Reference("name", name))
        object.__setattr__(self, "__name__", name)
        object.__setattr__(self, "_is_class", is_class)

    def _ask(self, operation: str, *operands: Any, ends: type[Exception] | None = None) -> Any:
        is_class = object.__getattribute__(self, "_is_class")
        return self._remote.ask(operation, self, *operands, ends=ends, own=is_class)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if self._remote.by_value and not object.__getattribute__(self, "_is_class"):
            arguments, keywords = _copies((arguments, keywords))
        return self._ask("call", list(arguments), keywords)

    def in_place(self, *arguments: Any, **keywords: Any) -> Any:
        """A call whose value is not used, so for what it does to its arguments alone."""
        return self._ask("call", list(arguments), keywords)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Value) and _exactly(bool, self._ask("has_instance", value))

    def __subclasscheck__(self, kind: object) -> bool:
        return isinstance(kind, Value) and _exactly(bool, self._ask("has_subclass", kind))

    def __mro_entries__(self, bases: object) -> Any:
        raise TestsBroken("derive a class from one of the program's")


async def _awaited(remote: Remote, value: Value) -> Any:
    return remote.ask("await", value)


async def _iterated(remote: Remote, value: Value) -> Any:
    while True:
        try:
            item = remote.ask("anext", value, ends=StopAsyncIteration)
        except StopAsyncIteration:
            return
        yield item


def _copies(values: Any) -> Any:
    try:
        return copy.deepcopy(values)
    except Exception:  # iterators and the like, which have no copy
        return values


def _plain_or_said(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)


def _exactly(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise ProgramFailed("tampers with its answers")
    return value
