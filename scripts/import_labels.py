"""Read published step labels into rows that a process reward model is trained on."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.import_labels import ImportConfig, run_import


def main() -> None:
    run_import(*parse_recipe((RuntimeConfig, ImportConfig)))


if __name__ == "__main__":
    main()
