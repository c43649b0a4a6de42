"""Turn search trees into training data for other trainers."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.export import ExportConfig, run_export


def main() -> None:
    run_export(*parse_recipe((RuntimeConfig, ExportConfig)))


if __name__ == "__main__":
    main()
