"""Train an outcome reward model on preferences."""

from __future__ import annotations

from trl.trainer.reward_config import RewardConfig

from trainer.preferences import PreferenceConfig, run_preferences
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_preferences(*parse_recipe((RuntimeConfig, PreferenceConfig, RewardConfig)))


if __name__ == "__main__":
    main()
