"""Measure a reward model on held-out problems."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.evaluate_prm import EvaluatePRMConfig, run_evaluate_prm


def main() -> None:
    run_evaluate_prm(*parse_recipe((RuntimeConfig, EvaluatePRMConfig)))


if __name__ == "__main__":
    main()
