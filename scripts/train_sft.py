"""Train the first policy."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from trainer.models.lora import LoraSettings
from trainer.rollouts.early_stopping import EarlyStoppingConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.sft import PolicyConfig, run_sft

CONFIGS = (RuntimeConfig, PolicyConfig, SFTConfig, LoraSettings, EarlyStoppingConfig)


def main() -> None:
    run_sft(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
