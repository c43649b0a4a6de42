"""Make problems, or read them from files."""

from __future__ import annotations

import sys

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.data import DataConfig, run_data, task_config_type

CONFIGS = (RuntimeConfig, DataConfig)


def main() -> None:
    run_data(*parse_recipe((*CONFIGS, task_config_type(sys.argv[1:]))))


if __name__ == "__main__":
    launch(main)
