"""Plain Python values as text, and back: what may pass between two processes of which one lies.

Exactly None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict,
range, and of the standard library deque, Counter, OrderedDict, Decimal, Fraction, date, time,
datetime and timedelta; no subclass, so no patched `__eq__` comes through. What is none of these may
pass as a `Handle`, a number by which the other process can ask about it. JSON carries it, every
value as [tag, content]. Nothing here is ever unpickled or evaluated.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, cast

MAX_NESTING = 60
MAX_BYTES = 4 << 20


class NotPlain(ValueError):
    """A value that is not plain, or text that does not spell one; the message says why."""


class Handle:
    """Stands for a value that stays where it is."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def dumps(value: Any, other: Callable[[Any], Any] | None = None) -> str:
    """`other` gives what passes in a value's place that is not plain: something plain, or a Handle.
    Raises NotPlain for such a value without it, deep nesting and too much of it."""
    text = json.dumps(_encode(value, MAX_NESTING, other))
    if len(text) > MAX_BYTES:
        raise NotPlain(f"the value takes {len(text)} bytes; at most {MAX_BYTES} are passed on")
    return text


def loads(text: str | bytes, handle: Callable[[int], Any] | None = None) -> Any:
    """`handle` gives the value that a handle's number stands for. Raises NotPlain for whatever
    `dumps` did not write."""
    try:
        return _decode(json.loads(text), MAX_NESTING, handle)
    except NotPlain:
        raise
    except (ValueError, TypeError, RecursionError, ArithmeticError, LookupError) as error:
        raise NotPlain(f"not the text of a plain value ({type(error).__name__})") from None


def _encode(value: Any, depth: int, other: Callable[[Any], Any] | None) -> list[Any]:
    if depth == 0:
        raise NotPlain(f"the value is nested more than {MAX_NESTING} deep")
    kind = cast("type[Any]", type(value))
    if value is None:
        return ["none"]
    if kind in (bool, str):
        return [kind.__name__, value]
    if kind in TO_TEXT:
        return [kind.__name__, TO_TEXT[kind](value)]
    if kind is complex:
        return ["complex", float.hex(value.real), float.hex(value.imag)]
    if kind in PAIRS.values():
        pairs = cast("dict[Any, Any]", value).items()
        coded = [[_encode(k, depth - 1, other), _encode(v, depth - 1, other)] for k, v in pairs]
        return [kind.__name__, coded]
    if kind in COLLECTIONS.values():
        return [kind.__name__, [_encode(item, depth - 1, other) for item in value]]
    if kind is Handle:
        return ["handle", format(value.number, "x")]
    parts = PARTS.get(f"{kind.__module__}.{kind.__qualname__}")
    if parts is not None:
        return [f"{kind.__module__}.{kind.__qualname__}", _encode(parts(value), depth - 1, other)]
    if other is not None:
        return _encode(other(value), depth - 1, other)
    raise NotPlain(f"a value of type {kind.__name__} is not plain")


def _decode(value: Any, depth: int, handle: Callable[[int], Any] | None) -> Any:
    if depth == 0 or type(value) is not list or not value:
        raise NotPlain("not the text of a plain value")
    tag, *content = cast("list[Any]", value)
    if tag == "none" and not content:
        return None
    if tag == "complex" and len(content) == 2:
        return complex(float.fromhex(content[0]), float.fromhex(content[1]))
    if len(content) != 1 or type(tag) is not str:
        raise NotPlain("not the text of a plain value")
    body = content[0]
    if tag in ("bool", "str") and type(body) is (bool if tag == "bool" else str):
        return body
    if tag in FROM_TEXT and type(body) is str:
        return FROM_TEXT[tag](body)
    if tag in PAIRS and type(body) is list:
        pairs = cast("list[Any]", body)
        return PAIRS[tag](
            {_decode(k, depth - 1, handle): _decode(v, depth - 1, handle) for k, v in pairs}
        )
    if tag in COLLECTIONS and type(body) is list:
        items = cast("list[Any]", body)
        return COLLECTIONS[tag]([_decode(item, depth - 1, handle) for item in items])
    if tag == "handle" and handle is not None:
        return handle(int(body, 16))
    if tag in PARTS:
        return _from_parts(tag, _decode(body, depth - 1, None))
    raise NotPlain(f"unknown tag {tag[:40]!r}")


def _from_parts(tag: str, parts: Any) -> Any:
    module, name = tag.split(".") if "." in tag else ("builtins", tag)
    kind: Any = getattr(importlib.import_module(module), name)
    if tag in ("datetime.date", "datetime.time", "datetime.datetime"):
        return kind.fromisoformat(parts)
    if tag == "decimal.Decimal":
        return kind(cast("str", parts))
    return kind(*parts)


TO_TEXT: dict[type[Any], Callable[[Any], str]] = {
    int: lambda value: format(value, "x"),
    float: float.hex,
    bytes: bytes.hex,
    bytearray: bytearray.hex,
}
FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
}
PAIRS: dict[str, type[Any]] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
COLLECTIONS: dict[str, type[Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}
# What of the standard library is rarely loaded goes by its name, as the plain values it is made of.
PARTS: dict[str, Callable[[Any], Any]] = {
    "builtins.range": lambda value: [value.start, value.stop, value.step],
    "decimal.Decimal": str,
    "fractions.Fraction": lambda value: [value.numerator, value.denominator],
    "datetime.date": lambda value: value.isoformat(),
    "datetime.time": lambda value: value.isoformat(),
    "datetime.datetime": lambda value: value.isoformat(),
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
