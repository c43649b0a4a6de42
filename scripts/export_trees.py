"""Turn search trees into training data for other trainers."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.export import ExportConfig, run_export

CONFIGS = (RuntimeConfig, ExportConfig)


def main() -> None:
    run_export(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
