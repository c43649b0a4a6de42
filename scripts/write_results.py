"""Collect a run's numbers and draw its report."""

from __future__ import annotations

from trainer.report.results import ReportConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.report import run_report

CONFIGS = (RuntimeConfig, ReportConfig)


def main() -> None:
    run_report(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
