"""Copies a model to another folder, without what its stage wrote beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from trainer.models.loading import load_policy, save_model, whole_models
from trainer.runtime.manifests import MANIFEST, UNHASHED_FILES


def copy_model(source: Path, folder: Path) -> None:
    """Copy a model's own files: those at the top of its folder, without rows (.jsonl), hidden files
    and the records of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        left_out = path.name in (MANIFEST, *UNHASHED_FILES) or path.suffix == ".jsonl"
        if path.is_file() and not path.name.startswith(".") and not left_out:
            shutil.copyfile(path, folder / path.name)


def copy_policy(policy: str, folder: Path) -> None:
    """Copy a policy to `folder`, from its folder or from the hub."""
    if Path(policy).is_dir():
        copy_model(Path(policy), folder)
    else:
        with whole_models():
            save_model(*load_policy(policy), folder)
