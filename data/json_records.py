"""Read frozen dataclasses back from the JSON of `dataclasses.asdict`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def record_from_json(kind: type[T], value: Any) -> T:
    """The dataclass `kind` from a JSON mapping. Fields may be dataclasses, tuples of one type,
    mappings with text as keys, unions with None, plain values, and `Any`: plain JSON. A field with
    a default may be missing: an older version wrote the file.

    Raises ValueError for an unknown key, a missing key and a value of another type. The message
    names the place.
    """
    return _record(kind, value, kind.__name__)


def read_record(kind: type[T], path: Path) -> T:
    """The dataclass `kind` from a JSON file. Raises ValueError naming the file and the place, and
    FileNotFoundError."""
    try:
        return record_from_json(kind, json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} must be a mapping, got {value!r}")
    names = [field.name for field in fields(kind)]
    given = cast("Mapping[str, Any]", value)
    for key in given:
        if key not in names:
            raise ValueError(f"{place} holds an unknown key {key!r}; known: {', '.join(names)}")
    for field in fields(kind):
        if field.name not in given and _is_required(field):
            raise ValueError(f"{place} lacks the key {field.name!r}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], given[name], f"{place}.{name}") for name in given})


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        [other] = [kind for kind in arguments if kind is not NoneType]
        return _value(other, value, place)
    if origin is tuple and isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        return tuple(_value(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(items))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value)
        return {key: _value(arguments[1], item, f"{place}.{key}") for key, item in pairs.items()}
    if is_dataclass(hint):
        return _record(hint, value, place)
    if type(value) is hint or (hint is float and type(value) is int):
        return value
    raise ValueError(f"{place} must be of type {getattr(hint, '__name__', hint)}, got {value!r}")
