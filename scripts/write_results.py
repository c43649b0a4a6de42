"""Collect a run's numbers and draw its report."""

from __future__ import annotations

from trainer.report.results import ReportConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.report import run_report


def main() -> None:
    run_report(*parse_recipe((RuntimeConfig, ReportConfig)))


if __name__ == "__main__":
    main()
