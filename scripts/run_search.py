"""Search problems for training data."""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.making_trees import TreesConfig, run_trees
from trainer.runtime import RuntimeConfig
from trainer.strategy import parse_with_strategy


def main() -> None:
    run_trees(*parse_with_strategy((RuntimeConfig, TreesConfig, SearchSettings)))


if __name__ == "__main__":
    main()
