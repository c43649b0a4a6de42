"""Read published step labels into rows that a process reward model is trained on."""

from __future__ import annotations

from trainer.importing import ImportConfig, run_import
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_import(*parse_recipe((RuntimeConfig, ImportConfig)))


if __name__ == "__main__":
    main()
