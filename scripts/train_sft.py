"""Train the first policy: accelerate launch scripts/train_sft.py --config recipes/..."""

from __future__ import annotations

from trl import SFTConfig

from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig
from trainer.sft import PolicyConfig, run_sft


def main() -> None:
    run_sft(*parse_recipe((RuntimeConfig, PolicyConfig, SFTConfig)))


if __name__ == "__main__":
    main()
