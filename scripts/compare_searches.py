"""Compare search strategies at several budgets on the same problems."""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.searching.server_engines import SearchEngineConfig
from trainer.stages.compare import CompareConfig, run_compare

CONFIGS = (RuntimeConfig, CompareConfig, SearchSettings, SearchEngineConfig)


def main() -> None:
    run_compare(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
