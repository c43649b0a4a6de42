"""Strict settings: read YAML mappings, and check their keys and value types against the fields of
dataclasses."""

# PyYAML has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

ROOT = Path(__file__).resolve().parents[1]  # the folder that holds the packages


KEYS_PAGE = "docs/reference/keys.md"
LISTED = 40  # more names than this make no readable line


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed name that is most similar to `name`, or '' when none is similar. The dashes of
    options do not count."""
    options = {option.removeprefix("--"): option for option in allowed}
    found = difflib.get_close_matches(name.removeprefix("--"), options, n=1)
    return options[found[0]] if found else ""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Text such as "did you mean 'x'? ", with a space at its end; '' when no name is similar."""
    near = nearest(name, allowed)
    return f"did you mean {near!r}? " if near else ""


def suggestion(name: str, allowed: Iterable[str], listed_in: str | None = None) -> str:
    """What the error about an unknown name says of the allowed ones: the most similar name, else
    the names that contain `name`, else all of them. If they are many, it says where they are
    listed."""
    names = list(allowed)
    containing = [option for option in names if name.removeprefix("--") in option]
    if near := did_you_mean(name, names).strip():
        return near
    if not names:
        return "none is allowed"
    if 0 < len(containing) <= LISTED:
        return f"names that contain it: {', '.join(containing)}"
    if len(names) <= LISTED:
        return f"allowed: {', '.join(names)}"
    return "no allowed name is similar" + (f"; {listed_in} lists all" if listed_in else "")


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError when there is no file, no valid YAML or no
    mapping, and when the mapping repeats a key."""
    if not path.is_file():
        raise ValueError(f"config {str(path)!r} is not a file; paths start in {str(Path.cwd())!r}")
    text = path.read_text(encoding="utf-8")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"config {str(path)!r} is not valid YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise ValueError(f"config {str(path)!r} must hold a YAML mapping of field names to values")
    names = [key.value for key, _ in root.value]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"config {str(path)!r} gives {name!r} more than once")
    return {str(key): value for key, value in values.items()}


def check_values(values: Mapping[str, Any], hints: Mapping[str, Sequence[Any]]) -> None:
    """Check the keys and the types of the values. `hints` maps a field's name to its annotations,
    one per dataclass that has the field.

    Raises ValueError for an unknown key and for a value of another type.
    """
    for key, value in values.items():
        if key == "env":
            continue
        if key not in hints:
            raise ValueError(
                f"unknown key {key!r} in the config; {suggestion(key, hints, KEYS_PAGE)}"
            )
        for hint in hints[key]:
            if not _fits(value, hint):
                raise ValueError(f"{key} must be {_describe(hint)}, got {value!r}")


def field_docs(kind: type) -> dict[str, str]:
    """The documentation of every field: the string literal below the field in the class's source,
    or in the source of the class that it inherits the field from.

    The result leaves out fields without documentation. It is empty when the source of the class is
    not available.
    """
    docs: dict[str, str] = {}
    for parent in kind.__bases__:
        if dataclasses.is_dataclass(parent):
            docs |= field_docs(parent)
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return docs
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in itertools.pairwise(definition.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[field.target.id] = str(below.value.value)
    return docs


def without_none(hint: Any) -> Any:
    """`X` for `X | None`. Every other annotation stays as it is."""
    if get_origin(hint) in (Union, UnionType):
        rest = [kind for kind in get_args(hint) if kind is not NoneType]
        if len(rest) == 1:
            return rest[0]
    return hint


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if hint in (None, NoneType):
        return value is None
    if hint is float:  # YAML 1.1 reads 1e-5 as a string
        return type(value) in (int, float) or (isinstance(value, str) and _is_number(value))
    if hint in (int, bool, str):
        return type(value) is hint
    kind = origin or hint
    if not isinstance(kind, type) or hint is Any:
        return True
    if issubclass(kind, Enum):
        return isinstance(value, kind) or value in [member.value for member in kind]
    if issubclass(kind, Path):
        return isinstance(value, (str, Path))
    if issubclass(kind, (list, tuple)) or kind is Sequence:
        items = isinstance(value, (list, tuple))
        return items and (not arguments or all(_fits(item, arguments[0]) for item in value))
    if kind in (dict, Mapping):
        return isinstance(value, dict)
    return True  # this module does not know the class; its __post_init__ checks the value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_describe(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if hint in (None, NoneType):
        return "null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    if isinstance(hint, type) and not get_args(hint):
        return {"int": "an int", "float": "a float", "bool": "true or false", "str": "a str"}.get(
            hint.__name__, f"a {hint.__name__}"
        )
    return str(hint)
