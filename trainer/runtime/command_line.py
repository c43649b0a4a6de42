"""Reads the recipe of a stage, `--config file.yaml` and command-line overrides, into config
dataclasses.

TRL's parser does the parsing, and this module makes it strict. An unknown key in the file or on the
command line is an error, and so is a value of the wrong type. The error names the field, the value
and what is allowed. A top-level `env:` mapping in the file sets environment variables. No field may
be named `config` or `env`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from data.renamed_keys import refuse_renamed_keys
from data.settings import (
    KEYS_PAGE,
    check_values,
    field_docs,
    read_yaml_mapping,
    suggestion,
    without_none,
)
from search.labellers.by_name import labeller_entry
from search.strategies.by_name import entry
from trainer.runtime.judge_settings import check_judge
from trainer.runtime.launcher import TRACEBACK
from trainer.runtime.precision import without_emulated_bf16
from trainer.runtime.processes import cpu_processes, process_backend, told_to_use_the_cpu
from trainer.runtime.solution_defaults import solution_defaults
from trainer.runtime.training_settings import check_training_ranges


def parse_recipe(
    dataclass_types: tuple[type, ...], argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """One instance of each type, in the order given. `argv` is `sys.argv[1:]` when None.

    A field that several types declare (`output_dir`, `seed`) is one option: all types receive its
    value, and the default of the first type applies. On the command line, mapping fields take JSON,
    and list and tuple fields take several words. transformers' `use_cpu` is set to true if the
    accelerate config says so, or several processes run on a machine without an accelerator. Its
    `ddp_backend` is set if DeepSpeed launched these processes. A training's `bf16` is false on a
    CPU without instructions for it.

    Raises ValueError for an unknown key, for an old name of a key, a value of the wrong type, a
    missing required field, a missing or malformed file, a training argument out of its range, a
    `judge` that does not fit the settings (`check_judge`), and a field named `config` or `env`.
    """
    words = _split_config_flag(sys.argv[1:] if argv is None else argv)
    hints = _field_hints(dataclass_types)
    parser = _checked_parser(dataclass_types, words, hints, dataclass_types)
    on_the_cpu = cpu_processes() or told_to_use_the_cpu()
    if "use_cpu" in hints and "--use_cpu" not in words and on_the_cpu:
        words = [*words, "--use_cpu", "true"]
    if "ddp_backend" in hints and "--ddp_backend" not in words and process_backend():
        words = [*words, "--ddp_backend", process_backend() or ""]
    if {"bf16", "learning_rate"} <= hints.keys():
        words = without_emulated_bf16(words, peek("bf16", words, None))
    words = [*words, *words_of_the_data(words, hints)]
    configs = tuple(parser.parse_args_and_config(words))
    check_training_ranges(recipe_mapping(*configs))
    check_judge(configs)
    return configs


def check_recipe(dataclass_types: tuple[type, ...], argv: Sequence[str]) -> None:
    """The checks of `parse_recipe`, before the stage runs and perhaps on another machine.

    transformers' training arguments are not built, since they ask this machine for its devices.
    What the data would say of its solutions may be missing. Raises what `parse_recipe` does.
    """
    words = _split_config_flag(argv)
    hints = _field_hints(dataclass_types)
    built = tuple(kind for kind in dataclass_types if not hasattr(kind, "to_dict"))
    parser = _checked_parser(dataclass_types, words, hints, built)
    for key, value in STAND_INS.items():
        if key in hints and peek(key, words, None) is None:
            words = [*words, f"--{key}", value]
    check_judge(parser.parse_args_and_config(words))
    values = _file_values(words)
    check_training_ranges({name: _value(name, words, values, None) for name in hints})


# For what the data stage will say, in a check before it has run.
STAND_INS = {"verifier": "countdown", "max_new_tokens": "1"}


def _checked_parser(
    dataclass_types: tuple[type, ...],
    words: Sequence[str],
    hints: Mapping[str, Any],
    built: tuple[type, ...],
) -> Any:
    values = _file_values(words)
    refuse_renamed_keys(values, dataclass_types)
    check_values(values, hints)
    refuse_renamed_keys(_flag_names(words), dataclass_types)
    parser = _build_parser(dataclass_types, built)
    _check_flags(words, parser._option_string_actions, values)
    return parser


def peek(name: str, argv: Sequence[str], default: Any) -> Any:
    """The value of one key, before the rest of the recipe can be read: from the command line, else
    from the file, else `default`. Raises ValueError for a missing or malformed file."""
    words = _split_config_flag(argv)
    return _value(name, words, _file_values(words), default)


def _file_values(words: Sequence[str]) -> dict[str, Any]:
    """The mapping of the recipe's file; empty without a file."""
    if "--config" not in words:
        return {}
    return read_yaml_mapping(Path(words[words.index("--config") + 1]))


def _value(name: str, words: Sequence[str], values: Mapping[str, Any], default: Any) -> Any:
    for i, word in enumerate(words):
        if word == f"--{name}" and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return values.get(name, default)


# Keys that name a folder which records how solutions of its problems are judged.
SAYING_KEYS = ("data", "trees", "evaluation", "model")


def words_of_the_data(words: Sequence[str], hints: Mapping[str, Any]) -> list[str]:
    """The options for the verifier and the token limit that the recipe leaves out. Their values
    come from the folder of problems, or else of trees, of the evaluation or of the model.

    Raises ValueError if the recipe leaves a value out and the folder is not there or does not
    record it.
    """
    if {"--help", "-h"} & set(words):
        return []
    source = next((key for key in SAYING_KEYS if key in hints), None)
    # `solve` verifies no answer unless the user names a verifier.
    keys = ("max_new_tokens",) if source == "model" else ("verifier", "max_new_tokens")
    missing = [key for key in keys if _is_missing(key, words, hints)]
    folder = peek(source, words, None) if source else None
    if not missing or not isinstance(folder, str):
        return []
    if source != "model" and not Path(folder).exists():
        raise ValueError(f"{source} is {folder!r}: there is no such file or folder")
    known = solution_defaults(Path(folder))
    found: list[str] = []
    for key in missing:
        if key in known:
            found += [f"--{key}", known[key]]
        elif not Path(folder).exists():
            raise ValueError(
                f"{key} is not given, and {folder!r} is no folder that records it: correct its "
                f"name, or set {key} for a model of the hub"
            )
        else:
            raise ValueError(f"{key} is not given, and {folder!r} does not record it: set {key}")
    return found


def _is_missing(key: str, words: Sequence[str], hints: Mapping[str, Any]) -> bool:
    given = (peek(name, words, None) for name in (key, key.replace("_", "-")))
    return key in hints and all(value is None for value in given)


def recipe_mapping(*configs: Any) -> dict[str, Any]:
    """The resolved recipe as a JSON mapping. If a name repeats, the first config's value counts."""
    merged: dict[str, Any] = {}
    for config in reversed(configs):
        values = config.to_dict() if hasattr(config, "to_dict") else dataclasses.asdict(config)
        merged |= values
    return json.loads(json.dumps(merged, default=str, sort_keys=True))


def _field_hints(dataclass_types: tuple[type, ...]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for kind in dataclass_types:
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in ("config", "env"):
                raise ValueError(f"{kind.__name__}: the field name {field.name!r} is reserved")
            if field.init:
                found.setdefault(field.name, []).append(hints[field.name])
    return found


def _split_config_flag(argv: Sequence[str]) -> list[str]:
    """Splits `--config=x` into two words, the only form that TRL's parser knows."""
    words: list[str] = []
    for word in argv:
        words += ["--config", word[len("--config=") :]] if word.startswith("--config=") else [word]
    if words.count("--config") > 1:
        raise ValueError("--config is given more than once")
    if words and words[-1] == "--config":
        raise ValueError("--config needs the path of a YAML file")
    return words


def _flag_names(words: Sequence[str]) -> list[str]:
    """`key_name` for each of --key_name, --key-name and --key_name=value."""
    flags = (word.partition("=")[0] for word in words if word.startswith("--"))
    return [flag.removeprefix("--").replace("-", "_") for flag in flags]


def _check_flags(words: Sequence[str], known: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """`known` holds the options, and `values` the mapping in the recipe's file."""
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag not in known and flag not in ("--", "--config"):
            key = flag.removeprefix("--")
            outer, dot, inner = key.partition(".")
            holders = [k for k, v in values.items() if isinstance(v, dict) and key in v]
            if dot and f"--{outer}" in known:
                said = f"give the whole mapping: {outer}={{{inner}: ..., ...}}"
            elif holders:
                said = f"it is a key of {holders[0]}, a mapping that is given as a whole"
            else:
                candidates = [name for name in known if "-" not in name[2:]]
                said = suggestion(flag, candidates, KEYS_PAGE)
            raise ValueError(f"unknown option {flag!r}; {said}")


def _build_parser(dataclass_types: tuple[type, ...], built: tuple[type, ...]) -> Any:
    """A parser with the options of all types, which returns an instance of each type in `built`."""
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
                raise ValueError(f"these words belong to no option: {' '.join(rest)!r}")
            return tuple(_instantiate(kind, namespace) for kind in built)

        def error(self, message: str) -> Any:
            raise ValueError(f"{message} (in the config file or on the command line)")

    # If two options have one name, the parser keeps the later one. So the first type goes last.
    types = list(reversed(dataclass_types))
    parser = StrictParser(
        types,  # pyright: ignore[reportArgumentType]
        conflict_handler="resolve",
        allow_abbrev=False,
        epilog="--config FILE.yaml may give any of these keys; the command line overrides it. "
        f"{TRACEBACK} shows where a mistake was raised.",
    )
    docs = {name: text for kind in types for name, text in field_docs(kind).items()}
    for action in parser._actions:
        if action.dest in docs:
            action.help = docs[action.dest].replace("%", "%%")
    return parser


def _parseable_field(field: Any) -> Any:
    """A copy of `field` with a type that the parser can read from words."""
    inner = without_none(field.type)
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
    """Converts a valid value to the annotated type: list to tuple, int to float, text to enum."""
    hint = without_none(hint)
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


def parse_with_strategy(
    dataclass_types: tuple[type, ...], argv: Sequence[str] | None = None, default: str = "mcts"
) -> tuple[Any, ...]:
    """One instance of each type, and last the config of the recipe's `strategy`.

    Raises ValueError for an unknown strategy, and the errors of `parse_recipe`.
    """
    argv = sys.argv[1:] if argv is None else argv
    return parse_recipe((*dataclass_types, strategy_config_type(argv, default)), argv)


def strategy_config_type(argv: Sequence[str], default: str = "mcts") -> type:
    """The config of the recipe's `strategy`. Raises ValueError for an unknown strategy."""
    return entry(str(peek("strategy", argv, default))).config


def parse_with_labeller(
    dataclass_types: tuple[type, ...], argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """One instance of each type, and last the config of the recipe's `method` (default:
    monte_carlo). Raises ValueError for an unknown method, and the errors of `parse_recipe`."""
    argv = sys.argv[1:] if argv is None else argv
    return parse_recipe((*dataclass_types, labeller_config_type(argv)), argv)


def labeller_config_type(argv: Sequence[str]) -> type:
    """The config of the recipe's `method`. Raises ValueError for an unknown one."""
    return labeller_entry(str(peek("method", argv, "monte_carlo"))).config
