"""`manifest.json` describes a stage folder. The stage writes it last, by rename.

A folder without a manifest is incomplete. The manifest holds the resolved recipe, the seed, the
content hashes of the inputs and of the folder's files, versions, git commit, the compute spent and
the main metrics. This module imports neither torch nor transformers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.runtime.processes import is_main_process

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "thinktree-manifest"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "deepspeed", "wandb")
# These files have no hash in the manifest: they record the run (times, paths), not its results.
UNHASHED_FOLDERS = ("wandb", "runs", "logs", "__pycache__", "checkpoint-")
UNHASHED_FILES = (MANIFEST, "training_args.bin", "trainer_state.json", "wandb_run_id")


def write_json(path: Path, value: Any) -> None:
    """Write a temporary file, fsync and rename: a reader sees the old file or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, sort_keys=True, default=str)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in `path`; None if the file is absent or is not a JSON mapping."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def hash_file(path: Path, *, sync: bool = False) -> str:
    """sha256 of the bytes, in hex. `sync` forces them to the disk first."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_value(value: Any) -> str:
    """sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_outputs(folder: Path, *, sync: bool = False) -> dict[str, str]:
    """sha256 of every result file in `folder`, by relative path. Checkpoints and the records of the
    run are left out."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path, sync=sync)
        for path in _result_files(folder)
    }


def hash_input(source: str | Path) -> dict[str, str]:
    """The identity of an input: the content hash of a folder or file, or a name that is not a path.

    For a folder with a manifest, the hashes come from the manifest. Every other folder is hashed as
    a whole.
    """
    path = Path(source)
    if path.is_dir():
        manifest = read_json(path / MANIFEST)
        fingerprint = manifest["fingerprint"] if manifest else hash_value(hash_outputs(path))
        return {"fingerprint": fingerprint}
    if path.is_file():
        return {"fingerprint": hash_file(path)}
    return {"name": str(source)}


def write_manifest(
    folder: str | Path,
    *,
    stage: str,
    recipe: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, str | Path] | None = None,
    usage: Any = None,
    metrics: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Declare `folder` complete. Call this function last. Only rank 0 writes; every rank gets the
    path.

    `inputs` maps a name to a folder, file or hub id; `usage` is a `data.types.Usage` or a mapping;
    `seconds` is this attempt's wall time. Every file of the folder is forced to the disk first.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not is_main_process():
        return path
    outputs = hash_outputs(folder, sync=True)
    sources = {
        name: {"source": _relative(source, folder), **hash_input(source)}
        for name, source in (inputs or {}).items()
    }
    manifest = {
        "format": MANIFEST_FORMAT,
        "version": 1,
        "stage": stage,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
        "seconds": seconds,
        "recipe": dict(recipe),
        "inputs": sources,
        "outputs": outputs,
        "fingerprint": hash_value(outputs),
        "usage": dataclasses.asdict(usage) if dataclasses.is_dataclass(usage) else usage,  # pyright: ignore[reportArgumentType]
        "metrics": dict(metrics or {}),
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        "extra": dict(extra or {}),
    }
    write_json(path, manifest)
    return path


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder. Raises ValueError if the folder is incomplete: it has none."""
    manifest = read_json(Path(folder) / MANIFEST)
    if manifest is None or manifest.get("format") != MANIFEST_FORMAT:
        raise ValueError(f"{str(folder)!r} is not a complete stage folder: it has no {MANIFEST}")
    return manifest


def is_complete(folder: str | Path) -> bool:
    manifest = read_json(Path(folder) / MANIFEST)
    return manifest is not None and manifest.get("format") == MANIFEST_FORMAT


def changed_files(folder: str | Path) -> list[str]:
    """Result files that are missing, new, or different from the manifest: sorted relative paths."""
    recorded: dict[str, str] = read_manifest(folder)["outputs"]
    found = hash_outputs(Path(folder))
    names = recorded.keys() | found.keys()
    return sorted(name for name in names if recorded.get(name) != found.get(name))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit, and whether tracked files differ from it; None outside a repository."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _result_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        *folders, name = path.relative_to(folder).parts
        skipped = any(part.startswith((".", *UNHASHED_FOLDERS)) for part in folders)
        if skipped or name in UNHASHED_FILES or name.startswith(".") or not path.is_file():
            continue
        yield path


def _relative(source: str | Path, folder: Path) -> str:
    """The path relative to the folder, so that it stays valid if the outputs move; or the name."""
    path = Path(source)
    if not path.exists():
        return str(source)
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
