"""Measure policies and searches on held-out problems."""

from __future__ import annotations

from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.searching.server_engines import SearchEngineConfig
from trainer.stages.evaluate import EvaluateConfig, run_evaluate

CONFIGS = (RuntimeConfig, EvaluateConfig, SearchSettings, MCTSConfig, SearchEngineConfig)


def main() -> None:
    run_evaluate(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
