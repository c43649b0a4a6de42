"""One gated round of expert iteration."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from trainer.models.lora import LoraSettings
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.gates import GateConfig
from trainer.runtime.launcher import launch
from trainer.stages.expert_iteration import ExpertIterationConfig, run_expert_iteration

CONFIGS = (RuntimeConfig, ExpertIterationConfig, GateConfig, SFTConfig, LoraSettings)


def main() -> None:
    run_expert_iteration(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
