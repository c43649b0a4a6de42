"""Train a process reward model."""

from __future__ import annotations

from transformers import TrainingArguments

from trainer.models.lora import LoraSettings
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.train_prm import RewardModelConfig, run_prm

CONFIGS = (RuntimeConfig, RewardModelConfig, TrainingArguments, LoraSettings)


def main() -> None:
    run_prm(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
