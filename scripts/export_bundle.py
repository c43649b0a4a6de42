"""Put a trained policy, its reward model and three effort levels into one folder:

python scripts/export_bundle.py --evaluation outputs/countdown-demo --output_dir outputs/bundle
"""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.bundle import BundleConfig, run_bundle

CONFIGS = (RuntimeConfig, BundleConfig)


def main() -> None:
    run_bundle(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
