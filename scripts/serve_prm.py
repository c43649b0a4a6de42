"""Serve a reward model over HTTP, for search on other machines:

python scripts/serve_prm.py --reward_model outputs/prm_2 --host 0.0.0.0 --port 8100
"""

from __future__ import annotations

from rewards.server.batching import BatchingConfig
from trainer.models.serving import ServeConfig, serve
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.launcher import launch

CONFIGS = (ServeConfig, BatchingConfig)


def main() -> None:
    serve(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
