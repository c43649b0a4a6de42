"""Serve a bundle with OpenAI's API: search behind chat completions.

python scripts/serve.py --bundle outputs/bundle --port 8000
"""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.launcher import launch
from trainer.searching.server_engines import SearchEngineConfig
from trainer.serving.config import SearchServerConfig
from trainer.serving.serve import serve

CONFIGS = (SearchServerConfig, SearchEngineConfig)


def main() -> None:
    serve(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
