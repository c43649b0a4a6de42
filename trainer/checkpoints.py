"""Checkpoints that say when they are whole.

The Trainer writes a checkpoint's files one after another, so a run that dies while saving leaves a
folder that looks like any other. `checkpoint_manifest.json`, written after every process is done,
lists the files and their sizes; a checkpoint without it, or with other sizes, is not resumed from.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainer.manifests import is_main_process, read_json, write_json

CHECKPOINT_MANIFEST = "checkpoint_manifest.json"


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole `checkpoint-N` in `folder`, None where there is none."""
    whole = [path for path in _checkpoints(Path(folder)) if is_whole(path)]
    return whole[-1] if whole else None


def is_whole(checkpoint: Path) -> bool:
    manifest = read_json(checkpoint / CHECKPOINT_MANIFEST)
    return manifest is not None and all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in manifest["bytes"].items()
    )


def remove_partial_checkpoints(folder: str | Path) -> list[str]:
    """Delete the `checkpoint-N` folders that are not whole; returns their names."""
    partial = [path for path in _checkpoints(Path(folder)) if not is_whole(path)]
    for path in partial:
        shutil.rmtree(path)
    return [path.name for path in partial]


class CheckpointManifest(TrainerCallback):
    """Marks each checkpoint as whole once saved; clears partial ones when the trainer is built."""

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if is_main_process():
            remove_partial_checkpoints(args.output_dir)
        _wait_for_everyone()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _wait_for_everyone()  # every rank saves its own generator state
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if is_main_process() and checkpoint.is_dir():
            mark_whole(checkpoint, state.global_step, args.world_size)


def mark_whole(checkpoint: Path, step: int, processes: int) -> None:
    """Write the manifest of a checkpoint whose files are all there. For the main process alone."""
    sizes = {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != CHECKPOINT_MANIFEST
    }
    manifest = {"step": step, "processes": processes, "bytes": sizes}
    write_json(checkpoint / CHECKPOINT_MANIFEST, manifest)


def _checkpoints(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _wait_for_everyone() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
