"""Inside the sandbox: what can be asked about a program's values that stay with it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

OPERATORS: Any = operator
_loops: list[Any] = []


def _call(function: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return function(*arguments, **keywords)


def _await(value: Any) -> Any:
    return _loop().run_until_complete(value)


def _anext(value: Any) -> Any:
    return _loop().run_until_complete(anext(value))


def _loop() -> Any:
    if not _loops:
        import asyncio  # takes longer to load than most programs do to run

        _loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(_loops[0])
    return _loops[0]


def _swapped(value: Any, name: str, other: Any) -> Any:
    return ON_VALUES[name](other, value)


def _enter(value: Any) -> Any:
    return value.__enter__()


def _exit(value: Any, *raised: Any) -> Any:
    return value.__exit__(*raised)


def _contains(value: Any, item: Any) -> bool:
    return item in value


def _has_instance(kind: Any, value: Any) -> bool:
    return isinstance(value, kind)


def _has_subclass(kind: Any, other: Any) -> bool:
    return issubclass(other, kind)


ON_VALUES: dict[str, Callable[..., Any]] = {
    "call": _call, "get": getattr, "set": setattr, "delete": delattr, "item": OPERATORS.getitem,
    "set_item": OPERATORS.setitem, "delete_item": OPERATORS.delitem, "iter": iter, "next": next,
    "reversed": reversed, "len": len, "bool": bool, "str": str, "repr": repr, "format": format,
    "enter": _enter, "exit": _exit, "await": _await, "anext": _anext, "swapped": _swapped,
    "has_instance": _has_instance, "has_subclass": _has_subclass, "hash": hash,
    "contains": _contains, "divmod": divmod, "pow": pow, "abs": abs, "int": int, "float": float,
    "complex": complex, "round": round, "and": OPERATORS.and_, "or": OPERATORS.or_,
    **{
        name: getattr(operator, name)
        for name in (
            "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod",
            "matmul", "xor", "lshift", "rshift", "neg", "pos", "invert", "index",
        )
    },
}  # fmt: skip
