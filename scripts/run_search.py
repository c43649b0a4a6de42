"""Search problems for training data."""

from __future__ import annotations

from search.mcts import MCTSConfig
from trainer.making_trees import TreesConfig, run_trees
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_trees(*parse_recipe((RuntimeConfig, TreesConfig, MCTSConfig)))


if __name__ == "__main__":
    main()
