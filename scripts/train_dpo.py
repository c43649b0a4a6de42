"""Improve a policy with DPO (TRL) on step preferences from search."""

from __future__ import annotations

from trl.trainer.dpo_config import DPOConfig

from trainer.rollouts.held_out import HeldOutConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.dpo import StepPreferenceConfig, run_dpo

CONFIGS = (RuntimeConfig, StepPreferenceConfig, HeldOutConfig, DPOConfig)


def main() -> None:
    run_dpo(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
