"""Plain Python values as JSON, and back: what may pass between two processes of which one lies.

Exactly None, bool, int, float, complex, str, bytes, tuple, named tuple, frozenset, range, slice and
built-in types; of the standard library Decimal, Fraction, date, time, datetime and timedelta; and
what can change: list, dict, its views, set, bytearray, array, deque, Counter, OrderedDict. No
subclass passes, so no patched `__eq__` comes through. What can change passes as a number that both
processes know it by (`rewards.sandbox.objects`), and so does what is none of these (`Reference`).
Nothing here is ever unpickled or evaluated.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import json
import math
from array import array
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

MAX_NESTING = 100  # of tuples in one another; lists are not written inside one another
MAX_BYTES = 16 << 20
BIG = 1 << 62


class NotPlain(ValueError):
    """A value that is not plain, or text that does not spell one; the message says why."""


class TooLarge(NotPlain):
    """A plain value of more than is passed on."""


def check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise TooLarge(f"it takes {size} bytes; at most {MAX_BYTES} are passed on")


class Reference:
    """Stands for a value that stays where it is: `kind` says what can be done with it."""

    __slots__ = ("key", "kind")

    def __init__(self, kind: str, key: Any) -> None:
        self.kind = kind
        self.key = key


class Table(Protocol):
    """What a process knows of the other one's objects: `other` gives what passes in the place of a
    value that is not plain, a plain one or a Reference; `referred` what a Reference's kind and key
    stand for; `base` the type of which a value of a subclass counts as one."""

    @property
    def other(self) -> Callable[[Any], Any]: ...

    @property
    def referred(self) -> Callable[[str, Any], Any]: ...

    @property
    def base(self) -> Callable[[Any], type[Any] | None]: ...

    def number(self, value: Any, kind: type[Any]) -> int:
        """Of an object that can change, and counts as a `kind`."""
        ...

    def known(self, number: int) -> Any: ...


def encode(value: Any, table: Table, depth: int = MAX_NESTING) -> Any:
    """Raises NotPlain for what does not pass."""
    kind = cast("type[Any]", type(value))
    if value is None or kind is bool:
        return value
    if kind is str:
        check_size(len(value))
        return value
    if kind is int:
        return value if -BIG < value < BIG else ["int", format(value, "x")]
    if kind is float:
        return value if math.isfinite(value) else ["float", float.hex(value)]
    if kind in MUTABLE:
        return ["#", table.number(value, kind)]
    if depth == 0:
        raise TooLarge(f"it is nested more than {MAX_NESTING} deep")
    if kind in IMMUTABLE:
        check_size(len(value))
        coded = [encode(item, table, depth - 1) for item in value]
        return [kind.__name__, coded if kind is tuple else sorted(coded, key=json.dumps)]
    if kind is Reference:
        return ["at", value.kind, value.key]
    return _encode_rare(value, kind, table, depth - 1)


def _encode_rare(value: Any, kind: type[Any], table: Table, depth: int) -> Any:
    if kind in TO_TEXT:
        return [kind.__name__, *TO_TEXT[kind](value)]
    if kind is type and getattr(builtins, value.__name__, None) is value:
        return ["type", value.__name__]
    if kind in VIEWS:
        return [kind.__name__, encode(gc.get_referents(value)[0], table, depth)]
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in PARTS:
        return [name, [encode(part, table, depth) for part in PARTS[name](value)]]
    base = table.base(value)
    names: Any = getattr(kind, "_fields", None)
    if base is tuple and names is not None:
        items = [encode(item, table, depth) for item in tuple_of(value)]
        return ["named", kind.__name__, [str(name) for name in names], items]
    if base in MUTABLE:
        return ["#", table.number(value, base)]
    return encode(table.other(value) if base is None else PLAIN_OF[base](value), table, depth)


def decode(coded: Any, table: Table, depth: int = 2 * MAX_NESTING) -> Any:
    """Raises NotPlain, or one of `WRONG_TEXT`, for what `encode` did not give."""
    if coded is None or type(coded) in (bool, str, int, float):
        return coded
    if depth == 0 or type(coded) is not list or not coded:
        raise NotPlain("not the text of a plain value")
    tag, *content = cast("list[Any]", coded)
    body: Any = content[0]
    if tag == "#":
        return table.known(body)
    if tag == "at":
        return table.referred(*content)
    if tag in FROM_TEXT and type(body) is str:
        return FROM_TEXT[tag](*content)
    if tag in ("tuple", "frozenset") and type(body) is list:
        items = [decode(item, table, depth - 1) for item in cast("list[Any]", body)]
        return tuple(items) if tag == "tuple" else frozenset(items)
    if tag == "named":
        _, fields, items = content
        kind: Any = NAMED_TUPLE(body, fields)
        return kind(*[decode(item, table, depth - 1) for item in items])
    if tag in ("dict_keys", "dict_values", "dict_items"):
        held = decode(body, table, depth - 1)
        return getattr(held, tag.partition("_")[2])()
    if tag in PARTS:
        return _from_parts(tag, [decode(part, table, depth - 1) for part in body])
    return _refuse(tag)


WRONG_TEXT = (ValueError, TypeError, RecursionError, ArithmeticError, LookupError, AttributeError)


def content_of(value: Any, kind: type[Any], table: Table) -> list[Any]:
    """What an object that can change holds now."""
    check_size(kind.__len__(value))
    if kind is bytearray:
        return ["bytearray", bytearray.hex(value)]
    if kind is array:
        return ["array", value.typecode, value.tobytes().hex()]
    if kind in PAIRS:
        pairs = PAIRS[kind].items(value)
        return [kind.__name__, [[encode(k, table), encode(v, table)] for k, v in pairs]]
    coded = [encode(item, table) for item in kind.__iter__(value)]
    if kind is set:
        coded.sort(key=json.dumps)  # sets that are alike have texts that are
    return [kind.__name__, coded, value.maxlen] if kind is deque else [kind.__name__, coded]


def empty_like(content: list[Any]) -> Any:
    """An object of the type that a content is of, to be filled."""
    if content[0] == "array":
        return ARRAY(content[1])
    if content[0] == "deque":
        return deque[Any](maxlen=content[2])
    return KINDS[content[0]]()


def fill(value: Any, kind: type[Any], content: list[Any], table: Table) -> None:
    """Give an object what `content` says that it holds."""
    if content[0] != kind.__name__:
        raise NotPlain(f"a {kind.__name__} has become a {str(content[0])[:40]}")
    if kind is bytearray:
        value[:] = bytearray.fromhex(content[1])
    elif kind is array:
        value[:] = ARRAY(value.typecode, bytes.fromhex(content[2]))
    elif kind in PAIRS:
        pairs = [(decode(k, table), decode(v, table)) for k, v in content[1]]
        PAIRS[kind].clear(value)
        for key, held in pairs:
            PAIRS[kind].__setitem__(value, key, held)
    else:
        items = [decode(item, table) for item in content[1]]
        value_of: Any = kind
        value_of.clear(value)
        (value_of.update if kind is set else value_of.extend)(value, items)


def contained(value: Any, kind: type[Any]) -> Iterable[Any]:
    """The objects in an object that can change themselves or may hold such."""
    if kind in (bytearray, array, set):
        return ()
    return PAIRS[kind].values(value) if kind in PAIRS else kind.__iter__(value)


def _refuse(tag: Any) -> Any:
    raise NotPlain(f"unknown tag {str(tag)[:40]!r}")


def _from_parts(tag: str, parts: list[Any]) -> Any:
    module, name = tag.split(".")
    kind: Any = getattr(importlib.import_module(module), name)
    return kind.fromisoformat(*parts) if "iso" in PARTS[tag].__name__ else kind(*parts)


def _type_named(name: str) -> Any:
    kind = getattr(builtins, name)
    return kind if isinstance(kind, type) else _refuse("type")


def _int_of(text: str) -> int:
    return int(text, 16)


def _complex_of(real: str, imaginary: str) -> complex:
    return complex(float.fromhex(real), float.fromhex(imaginary))


def tuple_of(value: Any) -> tuple[Any, ...]:
    """The items of a tuple of a subclass, past a method of its own."""
    return tuple(TUPLE.__iter__(value))


def _frozenset_of(value: Any) -> frozenset[Any]:
    return frozenset(FROZENSET.__iter__(value))


def _iso(value: Any) -> list[Any]:
    return [value.isoformat()]


TO_TEXT: dict[type[Any], Callable[[Any], list[str]]] = {
    bytes: lambda value: [value.hex()],
    complex: lambda value: [float.hex(value.real), float.hex(value.imag)],
}
FROM_TEXT: dict[str, Callable[..., Any]] = {
    "int": _int_of,
    "float": float.fromhex,
    "bytes": bytes.fromhex,
    "complex": _complex_of,
    "type": _type_named,
}
ARRAY: Any = array
NAMED_TUPLE: Any = namedtuple
TUPLE: Any = tuple
FROZENSET: Any = frozenset
MUTABLE = (list, dict, set, deque, bytearray, array, OrderedDict, Counter)
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in MUTABLE}
IMMUTABLE = (tuple, frozenset)
# What reads and writes them past methods that a subclass has of its own.
PAIRS: dict[type[Any], type[Any]] = {dict: dict, Counter: dict, OrderedDict: OrderedDict}
EMPTY: dict[int, int] = {}
VIEWS: tuple[type[Any], ...] = (type(EMPTY.keys()), type(EMPTY.values()), type(EMPTY.items()))
# A plain value of a value of a subclass, past methods of the subclass.
PLAIN_OF: dict[type[Any], Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: lambda value: str.__getitem__(value, slice(None)),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    tuple: tuple_of,
    frozenset: _frozenset_of,
}
# What of the standard library is rarely loaded goes by its name, as the plain values it is made of.
PARTS: dict[str, Callable[[Any], list[Any]]] = {
    "builtins.range": lambda value: [value.start, value.stop, value.step],
    "builtins.slice": lambda value: [value.start, value.stop, value.step],
    "decimal.Decimal": lambda value: [str(value)],
    "fractions.Fraction": lambda value: [value.numerator, value.denominator],
    "datetime.date": _iso,
    "datetime.time": _iso,
    "datetime.datetime": _iso,
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
# A value of a subclass counts as one of the first of these that it is.
BASES: tuple[type[Any], ...] = (
    int, float, complex, str, bytes, bytearray, OrderedDict, Counter, dict, list, tuple, set,
    frozenset, deque, array,
)  # fmt: skip
