"""Objects that two processes share: each has its own copy, and with every message that passes
between them the copies become alike.

So a program that changes its argument changes it for the tests too, and a test that changes what
it was given changes what the program keeps, as if both ran in one process. An object is shared for
as long as both sides hold it: with every message a side says which objects nothing of its own
holds any more, told by the interpreter's counts of references.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from rewards.sandbox.literals import (
    KINDS,
    WRONG_TEXT,
    NotPlain,
    check_size,
    contained,
    content_of,
    decode,
    empty_like,
    encode,
    fill,
)


def _nothing_other(value: Any) -> Any:
    raise NotPlain(f"a value of type {type(value).__name__} is not plain")


def _nothing_referred(kind: str, key: Any) -> Any:
    raise NotPlain(f"refers to {str(kind)[:40]} {str(key)[:40]}")


class Objects:
    """Implements `rewards.sandbox.literals.Table`. Numbers of this side's objects are `first`,
    `first` + 2 and so on; the other side begins with another parity."""

    def __init__(
        self,
        first: int = 0,
        other: Callable[[Any], Any] = _nothing_other,
        referred: Callable[[str, Any], Any] = _nothing_referred,
        base: Callable[[Any], type[Any] | None] = lambda value: None,
    ) -> None:
        self.other, self.referred, self.base = other, referred, base
        self.changed = False  # whether the other side has changed an object of this side
        self._next = first
        self._known: dict[int, Any] = {}
        self._kinds: dict[int, type[Any]] = {}
        self._numbers: dict[int, int] = {}  # by identity
        self._waiting: list[int] = []  # to be written to a message
        self._said: dict[int, str] = {}  # the content that both sides have

    def __len__(self) -> int:
        return len(self._known)

    def number(self, value: Any, kind: type[Any]) -> int:
        known = self._numbers.get(id(value))
        if known is None:
            known, self._next = self._next, self._next + 2
            self._keep(known, value, kind)
        return known

    def known(self, number: int) -> Any:
        return self._known[number]

    def dumps(self, box: list[Any]) -> str:
        """A message with the one value in `box`, which is taken out: what holds it besides is all
        that holds it. Raises NotPlain; then it is as if it had not been asked."""
        known_before = len(self._known)
        try:
            coded, changed = self._written(box[0])
        except BaseException:
            for number in list(self._known)[known_before:]:
                self._drop(number)
            raise
        box.clear()
        self._said |= changed
        released = self._unheld()
        for number in released:
            self._drop(number)
        changes = ", ".join(f'"{number}": {text}' for number, text in changed.items())
        return f"[{coded}, {{{changes}}}, {json.dumps(released)}]"

    def _written(self, value: Any) -> tuple[str, dict[int, str]]:
        """The text of a value, and of the content of all objects that the other side has not."""
        coded = json.dumps(encode(value, self), ensure_ascii=False)
        changed: dict[int, str] = {}
        size = len(coded)
        check_size(size)
        self._waiting = list(self._known)
        for number in self._waiting:  # writing one may make others known
            content = content_of(self._known[number], self._kinds[number], self)
            text = json.dumps(content, ensure_ascii=False)
            if text != self._said.get(number):
                changed[number] = text
                size += len(text)
                check_size(size)
        return coded, changed

    def loads(self, text: str | bytes) -> Any:
        """The value of a message of the other side's. Raises NotPlain for whatever its `dumps` did
        not write."""
        try:
            coded, changes, released = cast("list[Any]", json.loads(text))
            contents = {int(number): content for number, content in changes.items()}
            for number, content in contents.items():
                if number not in self._known:
                    if number % 2 == self._next % 2:
                        raise NotPlain("numbers an object as the other side does")
                    self._keep(number, empty_like(content), KINDS[content[0]])
                elif number % 2 == self._next % 2:
                    self.changed = True
            for number, content in contents.items():
                fill(self._known[number], self._kinds[number], content, self)
                self._said[number] = json.dumps(content, ensure_ascii=False)
            value = decode(coded, self)
            for number in released:
                self._drop(number)
        except NotPlain:
            raise
        except WRONG_TEXT as error:
            raise NotPlain(f"not the text of a plain value ({type(error).__name__})") from None
        return value

    def _keep(self, number: int, value: Any, kind: type[Any]) -> None:
        self._known[number] = value
        self._kinds[number] = kind
        self._numbers[id(value)] = number
        self._waiting.append(number)

    def _drop(self, number: int) -> None:
        del self._numbers[id(self._known.pop(number))]
        del self._kinds[number]
        self._said.pop(number, None)

    def _unheld(self) -> list[int]:
        """The objects that nothing holds but this table, and others that nothing holds."""
        if not self._known:
            return []
        inside = self._inside()
        counts = _counts(self._known)
        reached = [n for n, count in counts.items() if count > HELD_BY_A_TABLE + inside[n]]
        seen = set(reached)
        while reached:
            number = reached.pop()
            waiting = list(contained(self._known[number], self._kinds[number]))
            while waiting:
                item = waiting.pop()
                known = self._numbers.get(id(item))
                if known is not None and known not in seen:
                    seen.add(known)
                    reached.append(known)
                elif isinstance(item, tuple):
                    waiting.extend(cast("tuple[Any, ...]", item))
        return [number for number in self._known if number not in seen]

    def _inside(self) -> Counter[int]:
        """How often each object is in another one of the table."""
        inside = Counter[int]()
        for number, value in self._known.items():
            for item in contained(value, self._kinds[number]):
                held = self._numbers.get(id(item))
                if held is not None:
                    inside[held] += 1
        return inside


def _counts(known: dict[int, Any]) -> dict[int, int]:
    return {number: sys.getrefcount(value) for number, value in known.items()}


HELD_BY_A_TABLE = _counts({0: []})[0]


def dumps(value: Any) -> str:
    """A plain value as text, of which nothing is shared. Raises NotPlain."""
    return Objects().dumps([value])


def loads(text: str | bytes) -> Any:
    """Raises NotPlain for whatever `dumps` did not write."""
    return Objects(1).loads(text)
