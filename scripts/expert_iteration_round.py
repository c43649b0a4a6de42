"""One gated round of expert iteration."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from trainer.expert_iteration import ExpertIterationConfig, run_expert_iteration
from trainer.lora import LoraSettings
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_expert_iteration(
        *parse_recipe((RuntimeConfig, ExpertIterationConfig, SFTConfig, LoraSettings))
    )


if __name__ == "__main__":
    main()
