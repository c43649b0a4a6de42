"""Make a policy better by DPO (TRL) on the steps that search preferred."""

from __future__ import annotations

from trl.trainer.dpo_config import DPOConfig

from trainer.rollouts.held_out import HeldOutConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.dpo import PreferenceConfig, run_dpo


def main() -> None:
    run_dpo(*parse_recipe((RuntimeConfig, PreferenceConfig, HeldOutConfig, DPOConfig)))


if __name__ == "__main__":
    main()
