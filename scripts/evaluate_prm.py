"""Measure a reward model on held-out problems."""

from __future__ import annotations

from trainer.prm_evaluation import EvaluatePRMConfig, run_evaluate_prm
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_evaluate_prm(*parse_recipe((RuntimeConfig, EvaluatePRMConfig)))


if __name__ == "__main__":
    main()
