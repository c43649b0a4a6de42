"""Train the first policy."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from trainer.models.lora import LoraSettings
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.sft import PolicyConfig, run_sft


def main() -> None:
    run_sft(*parse_recipe((RuntimeConfig, PolicyConfig, SFTConfig, LoraSettings)))


if __name__ == "__main__":
    main()
