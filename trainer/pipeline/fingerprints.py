"""The fingerprint of a stage: one hash of its source, configs, arguments, seed and inputs, which
together determine its result."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from data.settings import ROOT, read_yaml_mapping
from trainer.pipeline.recipe import PLACEHOLDER, Pipeline, Stage, stage_settings
from trainer.runtime.manifests import (
    hash_file,
    hash_value,
    is_complete,
    read_manifest,
)
from trainer.runtime.stage_registry import entry_of_launcher


def stage_fingerprint(pipeline: Pipeline, stage: Stage) -> str | None:
    """sha256 of all that determines the stage's result; None while a stage that it reads is
    incomplete."""
    inputs: dict[str, str] = {}
    for name in stage.inputs:
        if not is_complete(pipeline.folder(name)):
            return None
        inputs[name] = read_manifest(pipeline.folder(name))["fingerprint"]
    launch_config = stage.accelerate_config or pipeline.accelerate_config
    entry, settings = entry_of_launcher(stage.script), stage_settings(stage)
    given = {key: settings.get(key) for key in entry.reads} if entry else {}
    found = {path: _content(Path(path)) for path in paths_outside(given)}
    contents = {path: content for path, content in found.items() if content}
    return hash_value(
        {
            **({"contents": contents} if contents else {}),
            "source": source_hash(Path(stage.script)),
            "config": read_yaml_mapping(Path(stage.config)) if stage.config else None,
            "args": stage.args,
            "accelerate": read_yaml_mapping(Path(launch_config)) if launch_config else None,
            "seed": pipeline.seed,
            "inputs": inputs,
        }
    )


def paths_outside(given: Mapping[str, Any]) -> Iterator[str]:
    """The paths among values of keys that name folders or files, without those of the recipe's own
    stages. A value is a text, or a list or mapping of texts."""
    for value in given.values():
        many = list(value.values()) if isinstance(value, dict) else value
        for path in many if isinstance(many, list | tuple) else [many]:
            if path and isinstance(path, str) and not PLACEHOLDER.search(path):
                yield path


def _content(path: Path) -> str | None:
    """A hash of what a path holds: of a stage's folder its fingerprint, of another folder or a file
    its bytes; None for what is no path."""
    if is_complete(path):
        return read_manifest(path)["fingerprint"]
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    hashes: list[tuple[str, str]] = []
    for file in files:
        state = file.stat()
        hashes.append((str(file.relative_to(path)), _hash(file, state.st_mtime_ns, state.st_size)))
    return hash_value(hashes) if hashes else None


@cache
def _hash(path: Path, changed: int, size: int) -> str:
    """The hash of a file, which is read once until it changes."""
    return hash_file(path)


def source_hash(script: Path) -> str:
    """sha256 of the syntax trees of a script and of all project modules that it imports, directly
    or indirectly."""
    trees: dict[Path, str] = {}
    waiting = [script.resolve()]
    while waiting:
        path = waiting.pop()
        if path in trees:
            continue
        state = path.stat()
        trees[path], names = _read_module(path, state.st_mtime_ns, state.st_size)
        for name in names:
            waiting += _module_files(name, (script.resolve().parent, ROOT))
    return hash_value(sorted(trees.values()))


@cache
def _read_module(path: Path, changed: int, size: int) -> tuple[str, tuple[str, ...]]:
    """The syntax tree and the imported names of a module. Every stage of a recipe imports most of
    the project, so a file is read once until it changes."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return ast.dump(tree), tuple(dict.fromkeys(_imported_names(tree)))


def _imported_names(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@cache
def _module_files(name: str, roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """The project's files that hold the module `name`, or the module and a name in it."""
    found: list[Path] = []
    for root in roots:
        base = root.joinpath(*name.split("."))
        candidates = (base.with_suffix(".py"), base / "__init__.py")
        found += [path.resolve() for path in candidates if path.is_file()]
    return tuple(found)
