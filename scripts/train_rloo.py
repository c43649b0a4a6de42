"""Make a policy better by RLOO (TRL), with rewards from verifier and process reward model."""

from __future__ import annotations

from trl.trainer.rloo_config import RLOOConfig

from trainer.group_rl import GroupRLConfig, run_group_rl
from trainer.held_out import HeldOutConfig
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_group_rl("rloo", *parse_recipe((RuntimeConfig, GroupRLConfig, HeldOutConfig, RLOOConfig)))


if __name__ == "__main__":
    main()
