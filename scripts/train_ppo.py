"""Make a policy better by PPO, with rewards from the verifier and a process reward model."""

from __future__ import annotations

from trainer.ppo import run_ppo
from trainer.ppo_config import PPOConfig
from trainer.recipe import parse_recipe
from trainer.rollouts import RewardConfig
from trainer.runtime import RuntimeConfig
from trainer.vllm_rollouts import RolloutEngineConfig


def main() -> None:
    run_ppo(*parse_recipe((RuntimeConfig, PPOConfig, RewardConfig, RolloutEngineConfig)))


if __name__ == "__main__":
    main()
