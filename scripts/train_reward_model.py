"""Train an outcome reward model on preferences."""

from __future__ import annotations

from trl.trainer.reward_config import RewardConfig

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.train_outcome_model import PreferenceConfig, run_preferences

CONFIGS = (RuntimeConfig, PreferenceConfig, RewardConfig)


def main() -> None:
    run_preferences(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
