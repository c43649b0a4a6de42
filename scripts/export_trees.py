"""Turn search trees into training data for other trainers."""

from __future__ import annotations

from trainer.exporting import ExportConfig, run_export
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_export(*parse_recipe((RuntimeConfig, ExportConfig)))


if __name__ == "__main__":
    main()
