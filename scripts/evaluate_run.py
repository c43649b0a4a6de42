"""Measure policies and searches on held-out problems."""

from __future__ import annotations

from search.mcts import MCTSConfig
from search.settings import SearchSettings
from trainer.evaluate_stage import EvaluateConfig, run_evaluate
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_evaluate(*parse_recipe((RuntimeConfig, EvaluateConfig, SearchSettings, MCTSConfig)))


if __name__ == "__main__":
    main()
