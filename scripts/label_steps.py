"""Label reasoning steps by rollouts."""

from __future__ import annotations

from search.label import LabelConfig
from trainer.labelling import LabelStageConfig, run_label
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_label(*parse_recipe((RuntimeConfig, LabelStageConfig, LabelConfig)))


if __name__ == "__main__":
    main()
