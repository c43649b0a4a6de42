"""Merge a LoRA adapter into its model.

python scripts/merge_adapter.py --adapter outputs/sft/adapter --output_dir outputs/merged
"""

from __future__ import annotations

from trainer.models.lora import MergeConfig, run_merge
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.launcher import launch

CONFIGS = (MergeConfig,)


def main() -> None:
    run_merge(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
