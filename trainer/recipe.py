"""A stage's recipe: `--config file.yaml`, then command-line overrides, into config dataclasses.

TRL's parser does the parsing; this module makes it strict. An unknown key, in the file or on the
command line, and a value of the wrong type are errors that name the field, the value and what is
allowed. A top-level `env:` mapping in the file sets environment variables. No field may be named
`config` or `env`.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from trainer.runtime import cpu_processes, process_backend


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed name most like `name`, '' where none is allowed."""
    return next(iter(difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.0)), "")


def parse_recipe(
    dataclass_types: tuple[type, ...], argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """One instance of each type, in the order given. `argv` is `sys.argv[1:]` when None.

    A field that several types declare (`output_dir`, `seed`) is one option: all of them receive
    its value, and the first type's default holds. Mapping fields take JSON on the command line,
    list and tuple fields take several words. transformers' `use_cpu` is on where several processes
    were launched on a machine without an accelerator, its `ddp_backend` set where by DeepSpeed.

    Raises ValueError for an unknown key, a value of the wrong type, a missing required field, a
    missing or malformed file, and a field named `config` or `env`.
    """
    words = _split_config_flag(sys.argv[1:] if argv is None else argv)
    hints = _field_hints(dataclass_types)
    if "--config" in words:
        check_values(read_yaml_mapping(Path(words[words.index("--config") + 1])), hints)
    parser = _build_parser(dataclass_types)
    _check_flags(words, parser._option_string_actions)
    if "use_cpu" in hints and "--use_cpu" not in words and cpu_processes():
        words = [*words, "--use_cpu", "true"]
    if "ddp_backend" in hints and "--ddp_backend" not in words and process_backend():
        words = [*words, "--ddp_backend", process_backend() or ""]
    return tuple(parser.parse_args_and_config(words))


def peek(name: str, argv: Sequence[str], default: Any) -> Any:
    """One key's value before the rest of a recipe can be read: the command line's, else the
    file's, else `default`. Raises ValueError for a missing or malformed file."""
    words = _split_config_flag(argv)
    for i, word in enumerate(words):
        if word == f"--{name}" and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    if "--config" in words:
        values = read_yaml_mapping(Path(words[words.index("--config") + 1]))
        return values.get(name, default)
    return default


def as_mapping(*configs: Any) -> dict[str, Any]:
    """The resolved recipe, ready for JSON; where names repeat, the first config's value holds."""
    merged: dict[str, Any] = {}
    for config in reversed(configs):
        values = config.to_dict() if hasattr(config, "to_dict") else dataclasses.asdict(config)
        merged |= values
    return json.loads(json.dumps(merged, default=str, sort_keys=True))


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping. Raises ValueError if it is not, or repeats a key."""
    if not path.is_file():
        raise ValueError(f"config {str(path)!r} is not a file")
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
    """Check keys and value types. `hints` maps a field to the annotations of every type with it."""
    for key, value in values.items():
        if key == "env":
            continue
        if key not in hints:
            raise ValueError(
                f"unknown key {key!r} in the config; did you mean {nearest(key, hints)!r}?"
            )
        for hint in hints[key]:
            if not _fits(value, hint):
                raise ValueError(f"{key} must be {_describe(hint)}, got {value!r}")


def _field_hints(dataclass_types: tuple[type, ...]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for kind in dataclass_types:
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in ("config", "env"):
                raise ValueError(f"{kind.__name__} has a field named {field.name!r}: reserved")
            if field.init:
                found.setdefault(field.name, []).append(hints[field.name])
    return found


def _split_config_flag(argv: Sequence[str]) -> list[str]:
    """`--config=x` as two words, which is the only form TRL's parser knows."""
    words: list[str] = []
    for word in argv:
        words += ["--config", word[len("--config=") :]] if word.startswith("--config=") else [word]
    if words.count("--config") > 1:
        raise ValueError("--config is given more than once")
    if words and words[-1] == "--config":
        raise ValueError("--config needs the path of a YAML file")
    return words


def _check_flags(words: Sequence[str], known: Mapping[str, Any]) -> None:
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag not in known and flag not in ("--", "--config"):
            candidates = [name for name in known if "-" not in name[2:]]
            raise ValueError(
                f"unknown option {flag!r}; did you mean {nearest(flag, candidates)!r}?"
            )


def _build_parser(dataclass_types: tuple[type, ...]) -> Any:
    from trl.scripts.utils import TrlParser

    class StrictParser(TrlParser):
        """TRL's parser with shared fields, tuples, mappings, and errors that are ValueErrors."""

        @staticmethod
        def _parse_dataclass_field(parser: Any, field: Any) -> None:
            TrlParser._parse_dataclass_field(parser, _parseable_field(field))

        def parse_args_into_dataclasses(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, args: Any = None, return_remaining_strings: bool = False, **_: Any
        ) -> tuple[Any, ...]:
            namespace, rest = self.parse_known_args(args)
            if rest:
                raise ValueError(f"words that belong to no option: {' '.join(rest)!r}")
            return tuple(_instantiate(kind, namespace) for kind in dataclass_types)

        def error(self, message: str) -> Any:
            raise ValueError(f"{message} (in the config file or on the command line)")

    # Of two options with one name the later holds, so the first type goes last.
    return StrictParser(
        list(reversed(dataclass_types)),  # pyright: ignore[reportArgumentType]
        conflict_handler="resolve",
        allow_abbrev=False,
    )


def _parseable_field(field: Any) -> Any:
    """A copy of `field`, its type one that the parser can read from words."""
    inner = _without_none(field.type)
    origin = get_origin(inner) or inner
    if origin is tuple:
        field = copy.copy(field)
        field.type = list[get_args(inner)[0] if get_args(inner) else str]
        if field.default is not dataclasses.MISSING:
            default, field.default = field.default, dataclasses.MISSING
            field.default_factory = lambda: default
    elif origin in (dict, Mapping):
        field = copy.copy(field)
        field.type = _json_mapping
    return field


def _json_mapping(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _instantiate(kind: type, namespace: Any) -> Any:
    hints = get_type_hints(kind)
    return kind(
        **{
            field.name: _converted(getattr(namespace, field.name), hints[field.name])
            for field in dataclasses.fields(kind)
            if field.init
        }
    )


def _converted(value: Any, hint: Any) -> Any:
    """A value that fits, as the annotated type itself: tuple for list, float for int, enum."""
    hint = _without_none(hint)
    if value is None:
        return value
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        inner = get_args(hint)[0]
        return tuple(_converted(item, inner) for item in value)
    if hint is float and type(value) in (int, str):
        return float(value)
    if isinstance(hint, type) and issubclass(hint, (Enum, Path)):
        return hint(value)
    return value


def _without_none(hint: Any) -> Any:
    """`X` for `X | None`; every other annotation as it is."""
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
    return True  # a class this module does not know: its own __post_init__ judges


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
