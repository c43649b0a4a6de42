"""Improve a policy with RLOO (TRL), with rewards from verifier and process reward model."""

from __future__ import annotations

from trl.trainer.rloo_config import RLOOConfig

from trainer.rollouts.held_out import HeldOutConfig
from trainer.rollouts.solution_reward import GroupRLConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.group_rl import run_group_rl

CONFIGS = (RuntimeConfig, GroupRLConfig, HeldOutConfig, RLOOConfig)


def main() -> None:
    run_group_rl("rloo", *parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
