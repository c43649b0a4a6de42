"""Measure a reward model on held-out problems."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.evaluate_prm import EvaluatePRMConfig, run_evaluate_prm

CONFIGS = (RuntimeConfig, EvaluatePRMConfig)


def main() -> None:
    run_evaluate_prm(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
