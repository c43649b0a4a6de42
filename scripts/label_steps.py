"""Label reasoning steps by rollouts, or by the trees of a search."""

from __future__ import annotations

from search.label import LabelSettings
from trainer.labelling import LabelStageConfig, run_label
from trainer.runtime import RuntimeConfig
from trainer.strategy import parse_with_labeller


def main() -> None:
    run_label(*parse_with_labeller((RuntimeConfig, LabelStageConfig, LabelSettings)))


if __name__ == "__main__":
    main()
