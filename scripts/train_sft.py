"""Train the first policy."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from trainer.lora import LoraSettings
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig
from trainer.sft import PolicyConfig, run_sft


def main() -> None:
    run_sft(*parse_recipe((RuntimeConfig, PolicyConfig, SFTConfig, LoraSettings)))


if __name__ == "__main__":
    main()
