"""Search problems for training data."""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.config import RuntimeConfig
from trainer.stages.search import TreesConfig, run_trees


def main() -> None:
    run_trees(*parse_with_strategy((RuntimeConfig, TreesConfig, SearchSettings)))


if __name__ == "__main__":
    main()
