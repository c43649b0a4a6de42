"""Collect a run's numbers and draw its report."""

from __future__ import annotations

from trainer.recipe import parse_recipe
from trainer.report_stage import ReportConfig, run_report
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_report(*parse_recipe((RuntimeConfig, ReportConfig)))


if __name__ == "__main__":
    main()
