"""All stages of a recipe are checked before the first one runs: their keys, values and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.pipeline.fingerprints import paths_outside
from trainer.pipeline.recipe import Pipeline, Stage, stage_settings, stage_words
from trainer.pipeline.run import stage_state
from trainer.runtime.command_line import check_recipe
from trainer.runtime.stage import check_inputs
from trainer.runtime.stage_registry import entry_of_launcher


def check_stages(pipeline: Pipeline, stages: Sequence[Stage]) -> list[str]:
    """Check those of `stages` that will run. Returns a line per file or folder that is read and not
    there. What lies in the recipe's own folder is not looked for, since the run may write it, and a
    launcher that `STAGES` does not have is not checked.

    Raises ValueError naming the first stage with a key or value that its launcher would refuse.
    """
    missing: list[str] = []
    own = Path(pipeline.output_dir).resolve()
    for stage in stages:
        entry = entry_of_launcher(stage.script)
        if entry is None or stage_state(pipeline, stage) == "unchanged":
            continue
        words = stage_words(pipeline, stage)[1:]
        try:
            check_recipe(entry.config_types(words), words)
        except ValueError as error:
            raise ValueError(f"stage {stage.name!r}: {error}") from None
        settings = stage_settings(stage)
        for key in entry.reads:
            for path in paths_outside({key: settings.get(key)}):
                if own not in Path(path).resolve().parents:
                    missing += _missing(stage, key, path)
    return missing


def _missing(stage: Stage, key: str, path: str) -> list[str]:
    try:
        check_inputs({key: path})
    except ValueError as error:
        return [f"stage {stage.name!r}: {error}"]
    # A hub id has at most one slash. An address, and a split of a data set, have a colon.
    is_path = ":" not in path and (path.startswith(("/", ".")) or path.count("/") > 1)
    if is_path and not Path(path).exists():
        return [f"stage {stage.name!r}: {key} is {path!r}: there is no such file or folder"]
    return []
