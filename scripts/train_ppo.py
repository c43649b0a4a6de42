"""Improve a policy with PPO, with rewards from the verifier and a process reward model."""

from __future__ import annotations

from trainer.ppo.config import PPOConfig
from trainer.rollouts.collect import RewardConfig
from trainer.rollouts.vllm import RolloutEngineConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.ppo import run_ppo

CONFIGS = (RuntimeConfig, PPOConfig, RewardConfig, RolloutEngineConfig)


def main() -> None:
    run_ppo(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
