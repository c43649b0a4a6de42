"""Train a process reward model."""

from __future__ import annotations

from transformers import TrainingArguments

from trainer.lora import LoraSettings
from trainer.prm import RewardModelConfig, run_prm
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_prm(*parse_recipe((RuntimeConfig, RewardModelConfig, TrainingArguments, LoraSettings)))


if __name__ == "__main__":
    main()
