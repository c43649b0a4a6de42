"""Fit a router that chooses each problem's strategy and budget, and test it."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.fit_router import FitRouterConfig, run_fit_router

CONFIGS = (RuntimeConfig, FitRouterConfig)


def main() -> None:
    run_fit_router(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
