"""Plain Python values as text, and back: what may pass between two processes of which one lies.

Exactly None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset and dict; no
subclass, so no patched `__eq__` comes through. JSON carries it, every value as [tag, content].
Nothing here is ever unpickled or evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

MAX_DEPTH = 60
MAX_BYTES = 4 << 20


class NotPlain(ValueError):
    """A value that is not plain, or text that does not spell one; the message says why."""


def dumps(value: Any) -> str:
    """Raises NotPlain for anything else than plain values, deep nesting and too much of it."""
    text = json.dumps(_encode(value, MAX_DEPTH))
    if len(text) > MAX_BYTES:
        raise NotPlain(f"the value takes {len(text)} bytes; at most {MAX_BYTES} are passed on")
    return text


def loads(text: str | bytes) -> Any:
    """Raises NotPlain for whatever `dumps` did not write."""
    try:
        return _decode(json.loads(text), MAX_DEPTH)
    except NotPlain:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise NotPlain(f"not the text of a plain value ({type(error).__name__})") from None


def _encode(value: Any, depth: int) -> list[Any]:
    if depth == 0:
        raise NotPlain(f"the value is nested more than {MAX_DEPTH} deep")
    kind = cast("type[Any]", type(value))
    if value is None:
        return ["none"]
    if kind is bool:
        return ["bool", bool(value)]
    if kind is int:
        return ["int", format(value, "x")]
    if kind is float:
        return ["float", float.hex(value)]
    if kind is complex:
        return ["complex", float.hex(value.real), float.hex(value.imag)]
    if kind is str:
        return ["str", value]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind is dict:
        pairs = cast("dict[Any, Any]", value).items()
        return ["dict", [[_encode(k, depth - 1), _encode(v, depth - 1)] for k, v in pairs]]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [_encode(item, depth - 1) for item in value]]
    raise NotPlain(f"a value of type {kind.__name__} is not plain")


def _decode(value: Any, depth: int) -> Any:
    if depth == 0 or type(value) is not list or not value:
        raise NotPlain("not the text of a plain value")
    tag, *content = cast("list[Any]", value)
    if tag == "none" and not content:
        return None
    if tag == "complex" and len(content) == 2:
        return complex(float.fromhex(content[0]), float.fromhex(content[1]))
    if len(content) != 1:
        raise NotPlain("not the text of a plain value")
    body = content[0]
    if tag in ("bool", "str") and type(body) is (bool if tag == "bool" else str):
        return body
    if tag in SCALARS and type(body) is str:
        return SCALARS[tag](body)
    if tag == "dict" and type(body) is list:
        pairs = [(_decode(k, depth - 1), _decode(v, depth - 1)) for k, v in cast("list[Any]", body)]
        return dict(pairs)
    if tag in COLLECTIONS and type(body) is list:
        return COLLECTIONS[tag]([_decode(item, depth - 1) for item in cast("list[Any]", body)])
    raise NotPlain(f"unknown tag {str(tag)[:40]!r}")


SCALARS: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
}
COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
