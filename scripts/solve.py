"""Solve a problem with a model, a search strategy and a budget:

python scripts/solve.py --model outputs/round_2 --reward_model outputs/prm_2 --strategy mcts \\
  --budgets 32 --problem "3 4 7 12 -> 24"

or with a bundle (scripts/export_bundle.py), whose effort levels have all of that:

python scripts/solve.py --bundle outputs/bundle --effort high --problem "3 4 7 12 -> 24"
"""

from __future__ import annotations

import sys

from search.settings import SearchSettings
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.launcher import launch
from trainer.searching.bundles import words_of_the_bundle
from trainer.searching.server_engines import SearchEngineConfig
from trainer.searching.solve import SolveConfig, solve

CONFIGS = (SolveConfig, SearchSettings, SearchEngineConfig)


def main() -> None:
    words = words_of_the_bundle(sys.argv[1:])
    config, settings, engine, strategy = parse_with_strategy(CONFIGS, words)
    solve(config, settings, strategy, engine)


if __name__ == "__main__":
    launch(main)
