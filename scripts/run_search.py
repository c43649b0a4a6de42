"""Search problems for training data."""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.searching.server_engines import SearchEngineConfig
from trainer.stages.search import TreesConfig, run_trees

CONFIGS = (RuntimeConfig, TreesConfig, SearchSettings, SearchEngineConfig)


def main() -> None:
    runtime, stage, settings, engine, strategy = parse_with_strategy(CONFIGS)
    run_trees(runtime, stage, settings, strategy, engine)


if __name__ == "__main__":
    launch(main)
