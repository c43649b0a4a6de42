"""Label reasoning steps by rollouts, or by the trees of a search."""

from __future__ import annotations

from search.labellers.by_name import LabelSettings
from trainer.runtime.command_line import parse_with_labeller
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.searching.server_engines import SearchEngineConfig
from trainer.stages.label import LabelStageConfig, run_label

CONFIGS = (RuntimeConfig, LabelStageConfig, LabelSettings, SearchEngineConfig)


def main() -> None:
    runtime, stage, settings, engine, labeller = parse_with_labeller(CONFIGS)
    run_label(runtime, stage, settings, labeller, engine)


if __name__ == "__main__":
    launch(main)
