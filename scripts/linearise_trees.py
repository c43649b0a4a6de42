"""Write search trees of Countdown problems down as demonstrations in which a policy thinks."""

from __future__ import annotations

from search.trees.thoughts import LinearisationConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.tree_thoughts import TreeThoughtsConfig, run_tree_thoughts

CONFIGS = (RuntimeConfig, TreeThoughtsConfig, LinearisationConfig)


def main() -> None:
    run_tree_thoughts(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
