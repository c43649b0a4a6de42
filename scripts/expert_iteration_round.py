"""One gated round of expert iteration."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from trainer.models.lora import LoraSettings
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.expert_iteration import ExpertIterationConfig, run_expert_iteration


def main() -> None:
    run_expert_iteration(
        *parse_recipe((RuntimeConfig, ExpertIterationConfig, SFTConfig, LoraSettings))
    )


if __name__ == "__main__":
    main()
