"""A recipe as one trial of a W&B sweep.

The agent of a sweep starts `run_recipe.py` once per trial, and says by environment variables which
run of W&B the trial is. The recipe's process keeps that run and logs the numbers of all stages to
it. The stages' own runs must not take its id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.pipeline.recipe import Pipeline, load_pipeline
from trainer.runtime.manifests import is_complete, read_manifest
from trainer.runtime.tracking import wandb_mode


def trial_of_a_sweep() -> str | None:
    """The id of the W&B run of this trial; None if no sweep's agent started this process."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def expanded(overrides: Sequence[str]) -> list[str]:
    """The values of `--set`. One that is a JSON mapping, as a sweep's `${args_json}` gives it,
    becomes a key=value for each of its items. Raises ValueError for a broken one."""
    words: list[str] = []
    for override in overrides:
        if not override.startswith("{"):
            words.append(override)
            continue
        try:
            values = json.loads(override)
        except ValueError as error:
            raise ValueError(f"--set {override!r} is not JSON: {error}") from None
        words += [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return words


def trial_overrides(recipe: str | Path, overrides: Sequence[str], trial: str) -> list[str]:
    """`overrides`, and a folder of the trial's own: `<output_dir>-sweep/<trial>`."""
    folder = f"{load_pipeline(recipe, overrides).output_dir}-sweep/{trial}"
    return [*overrides, f"output_dir={folder}"]


def log_trial(pipeline: Pipeline, trial: str) -> None:
    """Log the numbers of the complete stages to the trial's W&B run, as `<stage>/<metric>`."""
    import wandb

    numbers: dict[str, float] = {}
    for stage in pipeline.stages:
        if is_complete(pipeline.folder(stage.name)):
            metrics = read_manifest(pipeline.folder(stage.name))["metrics"]
            numbers |= dict(_numbers(metrics, stage.name))
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "thinktree"),
        dir=pipeline.output_dir,
        id=trial,
        group=pipeline.run_name,
        job_type="recipe",
        mode=wandb_mode(),  # pyright: ignore[reportArgumentType]
        settings=wandb.Settings(silent=True, console="off"),
    )
    run.log(numbers)
    run.finish()


def _numbers(values: Mapping[str, Any], name: str) -> Iterator[tuple[str, float]]:
    """The numbers of nested mappings, named by their path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}/{key}")
        elif isinstance(value, (int, float)):
            yield f"{name}/{key}", float(value)
