"""Read published step labels, and write rows that train a process reward model."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.import_labels import ImportConfig, run_import

CONFIGS = (RuntimeConfig, ImportConfig)


def main() -> None:
    run_import(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
