"""A recipe of several stages. Each stage is one launcher. The stages run in order, and a stage is
skipped while nothing has changed.

A stage's fingerprint covers its script and every project module that the script imports (as syntax
trees, so comments and layout do not count), its config file and arguments, the accelerate config,
the seed, and the content of the stages that it reads. `<output_dir>/stages/<name>.json` keeps the
fingerprint and the seconds spent over all attempts. A complete folder with the same fingerprint is
skipped, an incomplete folder is resumed, and a folder with another fingerprint is moved to
`replaced/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from data.settings import read_yaml_mapping, suggestion
from trainer.pipeline.every_stage import fill_in_all
from trainer.pipeline.extends import with_base
from trainer.pipeline.recipe_keys import RECIPE_KEYS, STAGE_KEYS
from trainer.pipeline.rounds import EACH_ROUND, expand_rounds, of_every_round
from trainer.pipeline.slices import check_overlaps, fill_in_sizes, problem_folders
from trainer.pipeline.values import choose_stages
from trainer.runtime.stage_registry import entry_of_launcher

SETTABLE = ("run_name", "output_dir", "seed", "accelerate_config", "rounds", "stop_after_refusals")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One launcher. `{name}` inside an argument stands for that earlier stage's folder."""

    name: str
    script: str
    config: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    accelerate_config: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the stages that this stage reads, in order of mention."""
        texts = [text for value in self.args.values() for text in _strings(value)]
        return tuple(dict.fromkeys(name for text in texts for name in PLACEHOLDER.findall(text)))


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    run_name: str
    output_dir: str
    stages: tuple[Stage, ...]
    seed: int = 17
    accelerate_config: str | None = None
    stop_after_refusals: int | None = None
    rounds: tuple[tuple[str, ...], ...] = ()  # names of the stages of each round
    # The same recipe with its rounds ended early: after `stop_after_refusals` rounds, after one
    # more, and so on.
    shorter: tuple[Pipeline, ...] = ()

    def folder(self, name: str) -> Path:
        return Path(self.output_dir) / name


def load_pipeline(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a recipe. `overrides` are `key=value` or `stage.key=value`, with the value as in YAML. A
    key may be one of the recipe's `values` (trainer/pipeline/values.py). `accelerate_config` also
    replaces the launch configs that the recipe's stages name. `label_<i>.key` sets a key of a stage
    in every round (trainer/pipeline/rounds.py).

    The recipe may extend another recipe (trainer/pipeline/extends.py).

    Raises ValueError, with the nearest valid name, for unknown keys, stages and placeholders, and
    for scripts and configs that do not exist.
    """
    pipeline = _load(path, overrides, None)
    first = pipeline.stop_after_refusals
    if first is None:
        return pipeline
    shorter = (_load(path, overrides, ran) for ran in range(first, len(pipeline.rounds)))
    return replace(pipeline, shorter=tuple(shorter))


def _load(path: str | Path, overrides: Sequence[str], ran: int | None) -> Pipeline:
    """`ran` is the number of rounds that the recipe has; None: all."""
    values, changes = with_base(read_yaml_mapping(Path(path)))
    if "slices" in values:
        raise ValueError("slices are written by the data stage: name them in args of that stage")
    _check_keys(
        values, [*RECIPE_KEYS], required=("run_name", "output_dir", "stages"), where="recipe"
    )
    settings = [_split_override(override) for override in overrides]
    for target, value in [*changes, *settings]:
        if target in ("rounds", "stop_after_refusals"):
            values[target] = value
    rows, rounds, absent = _stage_rows(values, ran)
    count = values.get("rounds") or 0
    changes, settings = (of_every_round(pairs, count, absent) for pairs in (changes, settings))
    named = values.pop("values", None) or {}
    if not isinstance(named, dict) or set(named) & set(RECIPE_KEYS):
        raise ValueError(f"values must be a mapping whose names are no other keys, got {named!r}")
    for target, value in [*changes, *settings]:
        if "." not in target:
            _override_value(values, named, rows, target, value)
    rows, left_out = choose_stages(rows, named)
    present = [(t, v) for t, v in changes if t.partition(".")[0] not in left_out]
    for target, value in [*present, *settings]:
        if "." in target:
            _override_stage(rows, left_out, target, value)
    fill_in_all(rows)
    folders = problem_folders(rows)
    fill_in_sizes(rows, folders)
    check_overlaps(rows, folders)
    for key, kind in (("run_name", str), ("output_dir", str), ("seed", int)):
        if key in values and type(values[key]) is not kind:
            raise ValueError(f"{key} must be of type {kind.__name__}, got {values[key]!r}")
    present_names = {row["name"] for row in rows}
    values["rounds"] = tuple(tuple(n for n in names if n in present_names) for names in rounds)
    pipeline = Pipeline(**{**values, "stages": tuple(Stage(**row) for row in rows)})
    _check_stages(pipeline)
    return pipeline


def _stage_rows(
    values: Mapping[str, Any], ran: int | None
) -> tuple[list[dict[str, Any]], tuple[tuple[str, ...], ...], frozenset[str]]:
    """The recipe's stages with `ran` rounds written out, the names of each of these rounds, and the
    names of the stages of the rounds that are left out."""
    rows, rounds, limit = values["stages"], values.get("rounds"), values.get("stop_after_refusals")
    if not isinstance(rows, list):
        raise ValueError(f"stages must be a list of mappings, got {rows!r}")
    _, every = expand_rounds(rows, rounds)
    if limit is not None and (type(limit) is not int or limit < 1 or not every):
        raise ValueError(
            f"stop_after_refusals is {limit!r}; it must be a whole number of at least 1, or null, "
            "in a recipe with rounds"
        )
    rows, names = expand_rounds(rows, rounds, ran)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"stages must be a list of mappings, got {rows!r}")
    for row in rows:
        where = f"stage {row.get('name')!r}"
        keys = [key for key in STAGE_KEYS if key != EACH_ROUND]
        _check_keys(row, keys, required=("name", "script"), where=where)
        row["args"] = row.get("args") or {}
        if not isinstance(row["args"], dict):
            raise ValueError(f"args of {where} must be a mapping, got {row['args']!r}")
    return rows, names, frozenset(name for own in every[len(names) :] for name in own)


def _check_keys(
    values: Mapping[str, Any], allowed: Sequence[str], required: Sequence[str], where: str
) -> None:
    for key in values:
        if key not in allowed:
            raise ValueError(f"unknown key {key!r} in {where}; {suggestion(str(key), allowed)}")
    for key in required:
        if key not in values:
            raise ValueError(f"{where} needs the key {key!r}")


def _split_override(override: str) -> tuple[str, Any]:
    target, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"--set takes key=value or stage.key=value, got {override!r}")
    return target, yaml.safe_load(text)


def _override_value(
    values: dict[str, Any],
    named: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    target: str,
    value: Any,
) -> None:
    if target in named:
        named[target] = value
    elif target in SETTABLE:
        values[target] = value
        if target == "accelerate_config":
            for row in rows:
                row.pop(target, None)
    else:
        names = [row["name"] for row in rows]
        owners = [row["name"] for row in rows if target in _keys_of(row)]
        if target in names:
            said = f"it is a stage: give {target}.key=value"
        elif owners:
            said = f"it is a key of stages: give {owners[0]}.{target}= (also: " + (
                f"{', '.join(owners[1:]) or 'no other'})"
            )
        else:
            said = suggestion(target, [*SETTABLE, *named, *(f"{name}." for name in names)])
        raise ValueError(f"--set {target!r} is unknown; {said}")


def _keys_of(row: Mapping[str, Any]) -> set[str]:
    """The keys of a stage: those of its launcher, and those that its file and `args` give."""
    path, entry = row.get("config"), entry_of_launcher(row["script"])
    values = read_yaml_mapping(Path(path)) if path and Path(path).is_file() else {}
    values |= row["args"]
    words = [word for k, v in values.items() if isinstance(v, str) for word in (f"--{k}", v)]
    kinds = entry.config_types(words) if entry else ()
    return {field.name for kind in kinds for field in fields(kind)} | values.keys()


def _override_stage(
    rows: Sequence[dict[str, Any]], left_out: Mapping[str, str], target: str, value: Any
) -> None:
    stage, _, key = target.partition(".")
    row = next((row for row in rows if row["name"] == stage), None)
    if row is None:
        if stage in left_out:
            raise ValueError(f"--set names stage {stage!r}, which is left out: {left_out[stage]}")
        hint = suggestion(stage, [row["name"] for row in rows])
        raise ValueError(f"--set names the unknown stage {stage!r}; {hint}")
    outer, dot, inner = key.partition(".")
    if dot:
        raise ValueError(
            f"--set {target!r} names a key inside {outer}; a mapping is given as a whole: "
            f"{stage}.{outer}={{{inner}: ..., ...}}"
        )
    if key in ("script", "config", "accelerate_config"):
        row[key] = value
    else:
        row["args"][key] = value


def _check_stages(pipeline: Pipeline) -> None:
    earlier: list[str] = []
    for stage in pipeline.stages:
        if not re.fullmatch(r"\w+", stage.name) or stage.name in ("stages", "logs", "replaced"):
            raise ValueError(
                f"stage name {stage.name!r} must be letters, digits and _, and not stages, logs "
                "or replaced"
            )
        if stage.name in earlier:
            raise ValueError(f"stage name {stage.name!r} is used more than once")
        for name in stage.inputs:
            if name not in earlier:
                hint = f"; {suggestion(name, earlier)}" if earlier else ""
                raise ValueError(
                    f"stage {stage.name!r} reads {name!r}, which is not an earlier stage{hint}"
                )
        launch_config = stage.accelerate_config or pipeline.accelerate_config
        for path in filter(None, (stage.script, stage.config, launch_config)):
            _check_file(stage.name, path)
        earlier.append(stage.name)


def _check_file(stage: str, path: str) -> None:
    if not Path(path).is_file():
        beside = [str(p) for p in Path(path).parent.glob(f"*{Path(path).suffix}")]
        hint = f"; {suggestion(path, beside)}" if beside else ""
        raise ValueError(f"stage {stage!r}: {path!r} is not a file{hint}")


def stage_settings(stage: Stage) -> dict[str, Any]:
    """A stage's recipe, overridden by its arguments."""
    values = read_yaml_mapping(Path(stage.config)) if stage.config else {}
    return values | {key: value for key, value in stage.args.items() if value is not None}


def stage_words(pipeline: Pipeline, stage: Stage) -> list[str]:
    """The stage's script and arguments with filled placeholders; null arguments are left out."""
    words = [stage.script]
    if stage.config:
        words += ["--config", stage.config]
    words += ["--output_dir", str(pipeline.folder(stage.name)), "--seed", str(pipeline.seed)]
    words += ["--run_name", stage.name, "--run_group", pipeline.run_name]
    for key, value in stage.args.items():
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(_word(pipeline, item) for item in items)]
    return words


def _word(pipeline: Pipeline, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(_filled(pipeline, value))
    return _filled(pipeline, str(value))


def _filled(pipeline: Pipeline, value: Any) -> Any:
    """The value with the folders of stages in the place of their placeholders."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: str(pipeline.folder(found[1])), value)
    if isinstance(value, list):
        return [_filled(pipeline, item) for item in value]
    if isinstance(value, dict):
        return {key: _filled(pipeline, item) for key, item in value.items()}
    return value


def _strings(value: Any) -> list[str]:
    """Every string that may hold a placeholder: those inside lists, and values of mappings."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | dict):
        items = value.values() if isinstance(value, dict) else value
        return [text for item in items for text in _strings(item)]
    return []
