"""A program's functions and values as a test sees them, while they are in another process.

What a test compares are plain values; a value that stays with the program is equal to itself alone,
whatever its class says, since its `__eq__` would be the program's word.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, cast

from rewards.sandbox.channel import Channel, ChannelClosed
from rewards.sandbox.literals import Handle, NotPlain, dumps, loads


class ProgramFailed(BaseException):
    """The program has no answer. Not an `Exception`, so that no test can mistake it for one that
    it expects."""


class TestsBroken(BaseException):
    """A test does what cannot be done from another process; the message says what."""

    __test__ = False


class Remote:
    """The other process. Exceptions of the program's reach the tests where these expect them
    (`expected` names those built into Python), else they are a ProgramFailed."""

    def __init__(self, channel: Channel, expected: Sequence[str]) -> None:
        self._channel = channel
        self._expected = tuple(getattr(builtins, name) for name in expected)
        self._values: dict[int, Value] = {}
        self.calls = 0

    def function(self, name: str) -> Function:
        return Function(self, name)

    def ask(self, operation: str, *operands: Any, ends: type[Exception] | None = None) -> Any:
        """`ends` is an exception with which the operation may say that there is nothing more."""
        self.calls += 1
        try:
            request = dumps([operation, *operands], _other)
        except NotPlain as error:
            raise TestsBroken(f"pass a value that is not plain: {error}") from error
        try:
            self._channel.send(request)
            reply = loads(self._channel.receive(), self._value)
        except ChannelClosed as error:
            raise ProgramFailed("ends before it answers") from error
        except NotPlain as error:
            raise ProgramFailed(f"tampers with its answers: {error}") from error
        match reply:
            case ["value", value]:
                return value
            case ["raised", str(name), list(), str(said)]:
                raise self._exception(name, cast("list[Any]", reply[2]), said, ends)
            case ["failed", str(said)]:
                raise ProgramFailed(said)
            case _:
                raise ProgramFailed("tampers with its answers")

    def _exception(
        self, name: str, arguments: list[Any], said: str, ends: type[Exception] | None
    ) -> BaseException:
        kind = getattr(builtins, name, None)
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            return ProgramFailed(said)
        if kind is ends:
            return kind()
        if kind in (StopIteration, StopAsyncIteration) or not issubclass(kind, self._expected):
            return ProgramFailed(said)
        try:
            return kind(*arguments)
        except Exception:  # arguments that this exception does not take
            return ProgramFailed(said)

    def _value(self, number: int) -> Value:
        if number not in self._values:
            self._values[number] = Value(self, number)
        return self._values[number]


class Function:
    """One of the program's functions or classes."""

    def __init__(self, remote: Remote, name: str) -> None:
        self._remote = remote
        self.__name__ = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._remote.ask("call", self.__name__, list(arguments), keywords)

    def in_place(self, *arguments: Any, **keywords: Any) -> Any:
        """A call after which the arguments are what the program made of them."""
        reply = self._remote.ask("call_in_place", self.__name__, list(arguments), keywords)
        before = [list(arguments), keywords]
        match reply:
            case [value, list(), dict()] if kinds_of(before) == kinds_of([reply[1], reply[2]]):
                make_like(before[0], reply[1])
                make_like(keywords, reply[2])
                return value
            case _:
                raise ProgramFailed("tampers with its answers")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._remote.ask("member", self.__name__, name, ends=AttributeError)


class Value:
    """A value that stays with the program."""

    def __init__(self, remote: Remote, number: int) -> None:
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._remote.ask("get", self, name, ends=AttributeError)

    def __setattr__(self, name: str, new: Any) -> None:
        self._remote.ask("set", self, name, new)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._remote.ask("call_value", self, list(arguments), keywords)

    def __getitem__(self, key: Any) -> Any:
        return self._remote.ask("item", self, key)

    def __setitem__(self, key: Any, new: Any) -> None:
        self._remote.ask("set_item", self, key, new)

    def __iter__(self) -> Any:
        iterator = self._remote.ask("iter", self, ends=TypeError)
        return iterator if isinstance(iterator, Value) else iter(iterator)

    def __next__(self) -> Any:
        return self._remote.ask("next", self, ends=StopIteration)

    def __len__(self) -> int:
        return _exactly(int, self._remote.ask("len", self, ends=TypeError))

    def __bool__(self) -> bool:
        return _exactly(bool, self._remote.ask("bool", self))

    def __str__(self) -> str:
        return _exactly(str, self._remote.ask("str", self))

    def __repr__(self) -> str:
        return _exactly(str, self._remote.ask("repr", self))


def kinds_of(call: list[Any]) -> list[type[Any]]:
    """The types of all arguments of a call, given as a list and a dict."""
    return [type(value) for value in [*call[0], *call[1].values()]]


def make_like(value: Any, changed: Any) -> None:
    """Give lists, dicts and sets the content they have in `changed`, those inside them too."""
    if type(value) is not type(changed):
        return
    if isinstance(value, list):
        items, new = cast("list[Any]", value), cast("list[Any]", changed)
        items[:] = [_kept(items[i], item) if i < len(items) else item for i, item in enumerate(new)]
    elif isinstance(value, dict):
        pairs, new_pairs = cast("dict[Any, Any]", value), cast("dict[Any, Any]", changed)
        kept = {
            key: _kept(pairs[key], item) if key in pairs else item
            for key, item in new_pairs.items()
        }
        pairs.clear()
        pairs.update(kept)
    elif isinstance(value, set):
        cast("set[Any]", value).clear()
        cast("set[Any]", value).update(cast("set[Any]", changed))


def _kept(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, list | dict | set):
        make_like(old, new)
        return cast("Any", old)
    return new


def _exactly(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise ProgramFailed("tampers with its answers")
    return value


def _other(value: Any) -> Any:
    """What passes in the place of a value that is not plain."""
    if isinstance(value, Value):
        return Handle(object.__getattribute__(value, "_number"))
    raise NotPlain(f"a value of type {type(value).__name__} is not plain")
