"""The registry of stages, held to the launchers and configs that it names."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

from trainer.pipeline.estimates import ESTIMATES
from trainer.pipeline.smoke import SMOKE_SIZES
from trainer.runtime.stage_registry import STAGES, entry_of_launcher
from trainer.stages.data import TASKS

ROOT = Path(__file__).parents[4]
NO_STAGES = {
    *("run_recipe.py", "solve.py", "serve.py", "serve_prm.py", "merge_adapter.py"),
    *("measure_gpu.py", "doctor.py"),
}


def test_every_launcher_of_a_stage_has_one_entry() -> None:
    launchers = sorted(entry.launcher for entry in STAGES.values())
    assert launchers == sorted(
        {path.name for path in (ROOT / "scripts").glob("*.py")} - NO_STAGES - {"write_reference.py"}
    )


def test_the_names_are_those_that_stages_write_into_their_manifests() -> None:
    written: set[str] = set()
    for path in (ROOT / "trainer" / "stages").glob("*.py"):
        written |= set(re.findall(r"run_stage\(\s*\"(\w+)\"", path.read_text(encoding="utf-8")))
    assert written | {"grpo", "rloo"} == set(STAGES)  # the two whose stage takes its name


@pytest.mark.parametrize("stage", STAGES)
def test_configs_are_those_of_the_launcher_and_have_the_keys(stage: str) -> None:
    entry = STAGES[stage]
    tree = ast.parse((ROOT / "scripts" / entry.launcher).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Tuple)]
    names = [item.id for item in calls[0].elts if isinstance(item, ast.Name)]
    assert [name.partition(":")[2] for name in entry.configs] == names
    kinds = [resolve_name(name) for name in entry.configs]
    if entry.chosen_config:  # the data stage's, by its task
        kinds += [kind for kind, _ in TASKS.values()]
    keys = {f.name for kind in kinds for f in dataclasses.fields(kind)}
    assert {*entry.reads, *entry.smoke_keys, *entry.smoke_values} <= keys
    assert set(entry.smoke_keys) <= set(SMOKE_SIZES)
    assert entry.estimate is None or entry.estimate in ESTIMATES


def test_defaults_are_those_of_all_configs() -> None:
    defaults = STAGES["ppo"].config_defaults()
    assert defaults["cycles"] == 60 and defaults["hang_seconds"] == 600 and "policy" not in defaults


def test_an_entry_is_found_by_its_launcher() -> None:
    assert entry_of_launcher("scripts/train_ppo.py") is STAGES["ppo"]
    assert entry_of_launcher("mine.py") is None


def test_reading_a_recipe_imports_no_stage_and_no_torch() -> None:
    code = (
        "import sys, trainer.pipeline.plan, trainer.pipeline.smoke, trainer.pipeline.run\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('trainer.stages')])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"
