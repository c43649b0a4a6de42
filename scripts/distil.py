"""Ask a stronger model behind an OpenAI-compatible server for long thoughts, and keep the verified
ones as demonstrations."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.distil import DistilConfig, run_distil

CONFIGS = (RuntimeConfig, DistilConfig)


def main() -> None:
    run_distil(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
