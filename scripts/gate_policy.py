"""Keep a new policy only if it beats the policy before it on fresh validation problems."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.gates import GateConfig
from trainer.runtime.launcher import launch
from trainer.stages.gate import GateStageConfig, run_gate

CONFIGS = (RuntimeConfig, GateStageConfig, GateConfig)


def main() -> None:
    run_gate(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
