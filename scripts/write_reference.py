"""Write the pages of docs/reference that are made from the code, every key and stage: make docs"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rewards.models.opening import CONVENTIONS
from search.labellers.by_name import LABELLERS
from search.strategies.by_name import STRATEGIES
from trainer.pipeline.recipe_keys import EXTENDING_KEYS, RECIPE_KEYS, STAGE_KEYS
from trainer.runtime.launcher import launch
from trainer.runtime.reference import keys_page, stages_page
from trainer.runtime.stage_registry import STAGES
from trainer.stages.data import TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"


def launcher_configs() -> dict[str, tuple[type, ...]]:
    """Every launcher's config classes, by the launcher's path."""
    found: dict[str, tuple[type, ...]] = {}
    for path in sorted((ROOT / "scripts").glob("*.py")):
        if "\nCONFIGS = " not in path.read_text(encoding="utf-8"):
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[f"scripts/{path.name}"] = module.CONFIGS
    return found


def choices() -> dict[str, dict[str, type]]:
    """For each key that chooses by name: the config class of each name."""
    return {
        "`task` of scripts/make_data.py": {name: task[0] for name, task in TASKS.items()},
        "`strategy` of a search": {name: s.config for name, s in STRATEGIES.items()},
        "`method` of scripts/label_steps.py": {name: m.config for name, m in LABELLERS.items()},
        "`convention` in a reward model's YAML": {n: c.config for n, c in CONVENTIONS.items()},
    }


def recipe_keys() -> dict[str, dict[str, str]]:
    """The keys of a recipe of several stages, by the title of their table."""
    return {
        "A run of several stages": RECIPE_KEYS,
        "A run that extends another one": EXTENDING_KEYS,
        "One stage of a run": STAGE_KEYS,
    }


def reference() -> dict[str, str]:
    """The text of each page, by its name."""
    return {
        "keys.md": keys_page(recipe_keys(), launcher_configs(), choices()),
        "stages.md": stages_page(STAGES),
    }


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in reference().items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    launch(main)
