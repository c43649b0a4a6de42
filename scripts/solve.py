"""Solve a problem with a model, a search strategy and a budget:

python scripts/solve.py --model outputs/round_2 --reward_model outputs/prm_2 --strategy mcts \\
  --budgets 32 --problem "3 4 7 12 -> 24"
"""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.launcher import launch
from trainer.searching.solve import SolveConfig, solve
from trainer.searching.vllm_engine import SearchEngineConfig

CONFIGS = (SolveConfig, SearchSettings, SearchEngineConfig)


def main() -> None:
    config, settings, engine, strategy = parse_with_strategy(CONFIGS)
    solve(config, settings, strategy, engine)


if __name__ == "__main__":
    launch(main)
