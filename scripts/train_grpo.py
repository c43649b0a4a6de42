"""Make a policy better by GRPO (TRL), with rewards from verifier and process reward model."""

from __future__ import annotations

from trl.trainer.grpo_config import GRPOConfig

from trainer.group_rl import GroupRLConfig, run_group_rl
from trainer.held_out import HeldOutConfig
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_group_rl("grpo", *parse_recipe((RuntimeConfig, GroupRLConfig, HeldOutConfig, GRPOConfig)))


if __name__ == "__main__":
    main()
