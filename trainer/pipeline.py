"""A whole recipe: stages run in order, each a launcher of its own, skipped while nothing changed.

A stage's fingerprint covers its script and every project module the script imports (as syntax
trees: comments and layout do not count), its config file and arguments, the accelerate config, the
seed, and the content of the stages it reads. `<output_dir>/stages/<name>.json` keeps it together
with the seconds spent over all attempts. A folder that is complete under the same fingerprint is
skipped, an incomplete one is resumed, and one of another fingerprint is moved to `replaced/`.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from trainer.choices import choose_stages
from trainer.extending import with_base
from trainer.launch import (
    ROOT,
    child_environment,
    command_line,
    exclusive,
    launcher_words,
    run_logged,
    tail,
)
from trainer.manifests import (
    MANIFEST,
    hash_file,
    hash_value,
    is_complete,
    read_json,
    read_manifest,
    write_json,
)
from trainer.recipe import nearest, read_yaml_mapping
from trainer.summary import print_results

TOP_LEVEL = ("run_name", "output_dir", "seed", "accelerate_config", "values", "stages")
SETTABLE = ("run_name", "output_dir", "seed", "accelerate_config")
STAGE_KEYS = ("name", "script", "config", "args", "accelerate_config", "when")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
TAIL_LINES = 25


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
        """Names of the stages this one reads, in order of mention."""
        texts = [text for value in self.args.values() for text in _strings(value)]
        return tuple(dict.fromkeys(name for text in texts for name in PLACEHOLDER.findall(text)))


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    run_name: str
    output_dir: str
    stages: tuple[Stage, ...]
    seed: int = 17
    accelerate_config: str | None = None

    def folder(self, name: str) -> Path:
        return Path(self.output_dir) / name


def load_pipeline(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a recipe; `overrides` are `key=value` or `stage.key=value`, the value as in YAML. A key
    may be one of the recipe's own `values` (trainer/choices.py).

    It may be another recipe with other settings (trainer/extending.py).

    Raises ValueError, with the nearest valid name, for unknown keys, stages and placeholders, and
    for scripts and configs that do not exist.
    """
    values, changes = with_base(read_yaml_mapping(Path(path)))
    _check_keys(values, TOP_LEVEL, required=("run_name", "output_dir", "stages"), where="recipe")
    rows = values["stages"]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"stages must be a list of mappings, got {rows!r}")
    for row in rows:
        where = f"stage {row.get('name')!r}"
        _check_keys(row, STAGE_KEYS, required=("name", "script"), where=where)
        row["args"] = row.get("args") or {}
        if not isinstance(row["args"], dict):
            raise ValueError(f"args of {where} must be a mapping, got {row['args']!r}")
    named = values.pop("values", None) or {}
    if not isinstance(named, dict) or set(named) & set(TOP_LEVEL):
        raise ValueError(f"values must be a mapping with names of its own, got {named!r}")
    settings = [_split_override(override) for override in overrides]
    for target, value in settings:
        if "." not in target:
            _override_value(values, named, rows, target, value)
    rows, left_out = choose_stages(rows, named)
    present = [(t, v) for t, v in changes if t.partition(".")[0] not in left_out]
    for target, value in [*present, *settings]:
        if "." in target:
            _override_stage(rows, left_out, target, value)
    for key, kind in (("run_name", str), ("output_dir", str), ("seed", int)):
        if key in values and type(values[key]) is not kind:
            raise ValueError(f"{key} must be of type {kind.__name__}, got {values[key]!r}")
    pipeline = Pipeline(**{**values, "stages": tuple(Stage(**row) for row in rows)})
    _check_stages(pipeline)
    return pipeline


def _check_keys(
    values: Mapping[str, Any], allowed: Sequence[str], required: Sequence[str], where: str
) -> None:
    for key in values:
        if key not in allowed:
            raise ValueError(
                f"unknown key {key!r} in {where}; did you mean {nearest(str(key), allowed)!r}?"
            )
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
    else:
        hint = nearest(target, [*SETTABLE, *named, *(f"{row['name']}." for row in rows)])
        raise ValueError(f"--set {target!r} is unknown; did you mean {hint!r}?")


def _override_stage(
    rows: Sequence[dict[str, Any]], left_out: Mapping[str, str], target: str, value: Any
) -> None:
    stage, _, key = target.partition(".")
    row = next((row for row in rows if row["name"] == stage), None)
    if row is None:
        if stage in left_out:
            raise ValueError(f"--set names stage {stage!r}, which is left out: {left_out[stage]}")
        hint = nearest(stage, [row["name"] for row in rows])
        raise ValueError(f"--set names the unknown stage {stage!r}; did you mean {hint!r}?")
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
                hint = f"; did you mean {nearest(name, earlier)!r}?" if earlier else ""
                raise ValueError(f"stage {stage.name!r} reads {name!r}, no earlier stage{hint}")
        launch_config = stage.accelerate_config or pipeline.accelerate_config
        for path in filter(None, (stage.script, stage.config, launch_config)):
            _check_file(stage.name, path)
        earlier.append(stage.name)


def _check_file(stage: str, path: str) -> None:
    if not Path(path).is_file():
        beside = [str(p) for p in Path(path).parent.glob(f"*{Path(path).suffix}")]
        hint = f"; did you mean {nearest(path, beside)!r}?" if beside else ""
        raise ValueError(f"stage {stage!r}: {path!r} is not a file{hint}")


def stage_words(pipeline: Pipeline, stage: Stage) -> list[str]:
    """The stage's script and arguments, placeholders filled in; null arguments are left out."""
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
        return json.dumps(value)
    return PLACEHOLDER.sub(lambda found: str(pipeline.folder(found[1])), str(value))


def _strings(value: Any) -> list[str]:
    """Every string in which a placeholder may stand; mappings are passed on as they are."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


# ---------------------------------------------------------------- fingerprints


def stage_fingerprint(pipeline: Pipeline, stage: Stage) -> str | None:
    """sha256 of all that decides the stage's result; None while a stage it reads is incomplete."""
    inputs: dict[str, str] = {}
    for name in stage.inputs:
        if not is_complete(pipeline.folder(name)):
            return None
        inputs[name] = read_manifest(pipeline.folder(name))["fingerprint"]
    launch_config = stage.accelerate_config or pipeline.accelerate_config
    return hash_value(
        {
            "source": source_hash(Path(stage.script)),
            "config": read_yaml_mapping(Path(stage.config)) if stage.config else None,
            "args": stage.args,
            "accelerate": read_yaml_mapping(Path(launch_config)) if launch_config else None,
            "seed": pipeline.seed,
            "inputs": inputs,
        }
    )


def source_hash(script: Path) -> str:
    """sha256 of the syntax trees of a script and the project modules it imports, transitively."""
    trees: dict[Path, str] = {}
    waiting = [script.resolve()]
    while waiting:
        path = waiting.pop()
        if path in trees:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        trees[path] = ast.dump(tree)
        for name in _imported_names(tree):
            waiting += _module_files(name, (script.resolve().parent, ROOT))
    return hash_value(sorted(trees.values()))


def _imported_names(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _module_files(name: str, roots: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for root in roots:
        base = root.joinpath(*name.split("."))
        candidates = (base.with_suffix(".py"), base / "__init__.py")
        found += [path.resolve() for path in candidates if path.is_file()]
    return found


# ---------------------------------------------------------------- running


@dataclass(frozen=True, kw_only=True)
class Record:
    """`<output_dir>/stages/<name>.json`. `seconds` is wall time over all attempts; `manifest` is
    the hash of the finished folder's manifest, empty until then."""

    fingerprint: str
    seconds: float = 0.0
    attempts: int = 0
    manifest: str = ""


def _record_path(pipeline: Pipeline, name: str) -> Path:
    return Path(pipeline.output_dir) / "stages" / f"{name}.json"


def read_record(pipeline: Pipeline, name: str) -> Record | None:
    values = read_json(_record_path(pipeline, name))
    return Record(**values) if values else None


def _write_record(pipeline: Pipeline, name: str, record: Record) -> None:
    write_json(_record_path(pipeline, name), vars(record))


def stage_state(pipeline: Pipeline, stage: Stage) -> str:
    """'unchanged' (skip it), 'resume', 'replace' (other inputs, settings or code) or 'new'."""
    folder = pipeline.folder(stage.name)
    if not folder.exists():
        return "new"
    record = read_record(pipeline, stage.name)
    if record is None or record.fingerprint != stage_fingerprint(pipeline, stage):
        return "replace"
    if not is_complete(folder):
        return "resume"
    same = record.manifest in ("", hash_file(folder / MANIFEST))
    return "unchanged" if same else "replace"


def selected_stages(pipeline: Pipeline, start: str | None, only: str | None) -> tuple[Stage, ...]:
    """All stages, those from `start` on, or `only` one. Raises ValueError for an unknown name."""
    names = [stage.name for stage in pipeline.stages]
    for option, name in (("--from", start), ("--only", only)):
        if name is not None and name not in names:
            raise ValueError(
                f"{option} {name!r} is no stage; did you mean {nearest(name, names)!r}?"
            )
    if start and only:
        raise ValueError("--from and --only exclude each other")
    if only:
        return (pipeline.stages[names.index(only)],)
    return pipeline.stages[names.index(start) if start else 0 :]


def run_pipeline(pipeline: Pipeline, stages: Sequence[Stage], continue_line: str) -> int:
    """Run what is not done; returns 0, or the exit status of the stage that failed."""
    with exclusive(Path(pipeline.output_dir)) as lock:
        for stage in stages:
            status = _run_stage(pipeline, stage, lock)
            if status != 0:
                log = _log_path(pipeline, stage)
                print(f"\nstage {stage.name} failed (exit {status}). The end of {log}:\n")
                print(tail(log, TAIL_LINES))
                print(f"\nTo continue once it is mended:\n  {continue_line}", flush=True)
                return status
    print_summary(pipeline)
    return 0


def _log_path(pipeline: Pipeline, stage: Stage) -> Path:
    return Path(pipeline.output_dir) / "logs" / f"{stage.name}.log"


def _run_stage(pipeline: Pipeline, stage: Stage, lock: int) -> int:
    names = [other.name for other in pipeline.stages]
    prefix = f"[{names.index(stage.name) + 1}/{len(names)} {stage.name}]"
    fingerprint = stage_fingerprint(pipeline, stage)
    if fingerprint is None:
        missing = [name for name in stage.inputs if not is_complete(pipeline.folder(name))]
        raise ValueError(f"stage {stage.name!r} reads {missing[0]!r}, which is not complete")
    state = stage_state(pipeline, stage)
    record = read_record(pipeline, stage.name)
    if state == "unchanged":
        print(f"{prefix} unchanged, skipped", flush=True)
        return 0
    if state == "replace":
        print(f"{prefix} changed: its old folder is now {_move_aside(pipeline, stage)}")
    if state != "resume" or record is None:
        record = Record(fingerprint=fingerprint)
        _log_path(pipeline, stage).unlink(missing_ok=True)
    print(f"{prefix} {'resuming' if state == 'resume' else 'running'}")
    status, seconds = _launch(pipeline, stage, lock, prefix, record)
    manifest = pipeline.folder(stage.name) / MANIFEST
    if status == 0 and not is_complete(manifest.parent):
        print(f"{prefix} ended without an error but wrote no {MANIFEST}")
        status = 1
    if status == 0:
        finished = replace(record, seconds=seconds, attempts=record.attempts + 1)
        _write_record(pipeline, stage.name, replace(finished, manifest=hash_file(manifest)))
        print(f"{prefix} done in {seconds:.1f} s", flush=True)
    return status


def _launch(
    pipeline: Pipeline, stage: Stage, lock: int, prefix: str, record: Record
) -> tuple[int, float]:
    """Run the stage's process; returns its exit status and the seconds of all attempts so far,
    which are kept in the record every few seconds, so that a killed run loses little."""
    seconds = record.seconds

    def keep_time(elapsed: float) -> None:
        nonlocal seconds
        seconds = record.seconds + elapsed
        attempt = replace(record, seconds=seconds, attempts=record.attempts + 1)
        _write_record(pipeline, stage.name, attempt)

    keep_time(0.0)
    launch_config = stage.accelerate_config or pipeline.accelerate_config
    launcher, typed = launcher_words(launch_config)
    words = stage_words(pipeline, stage)
    print(f"  {command_line(words, typed)}", flush=True)
    status = run_logged(
        [*launcher, *words],
        log=_log_path(pipeline, stage),
        environment=child_environment(num_processes(launch_config)),
        lock=lock,
        say=lambda line: print(f"{prefix} {seconds:.0f} s  {line[:120]}", flush=True),
        on_poll=keep_time,
    )
    return status, seconds


def num_processes(accelerate_config: str | None) -> int:
    values = read_yaml_mapping(Path(accelerate_config)) if accelerate_config else {}
    return int(values.get("num_processes") or 1)


def _move_aside(pipeline: Pipeline, stage: Stage) -> Path:
    root = Path(pipeline.output_dir) / "replaced"
    root.mkdir(exist_ok=True)
    number = 1
    while (root / f"{stage.name}-{number}").exists():
        number += 1
    target = root / f"{stage.name}-{number}"
    shutil.move(pipeline.folder(stage.name), target)
    return target


def print_summary(pipeline: Pipeline) -> None:
    """Seconds by stage over all attempts, accuracies, and where the report is."""
    rows = [(stage.name, read_record(pipeline, stage.name)) for stage in pipeline.stages]
    width = max(len(name) for name, _ in rows)
    print("\nseconds by stage (all attempts)")
    for name, record in rows:
        print(f"  {name:<{width}}  {record.seconds if record else 0.0:9.1f}")
    print(f"  {'total':<{width}}  {sum(r.seconds for _, r in rows if r):9.1f}")
    out = Path(pipeline.output_dir)
    results = read_json(out / "results.json")
    if results is not None:
        print_results(results)
    for report in (out / "report.html", *sorted(out.glob("*/report.html"))):
        if report.is_file():
            print(f"\nreport: {report}", flush=True)
            return
