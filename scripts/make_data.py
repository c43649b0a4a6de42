"""Make or take in the problems."""

from __future__ import annotations

from data.tasks.countdown import CountdownConfig
from trainer.make_data import DataConfig, run_data
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_data(*parse_recipe((RuntimeConfig, DataConfig, CountdownConfig)))


if __name__ == "__main__":
    main()
