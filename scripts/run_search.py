"""Search problems for training data."""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.search import TreesConfig, run_trees

CONFIGS = (RuntimeConfig, TreesConfig, SearchSettings)


def main() -> None:
    run_trees(*parse_with_strategy(CONFIGS))


if __name__ == "__main__":
    launch(main)
