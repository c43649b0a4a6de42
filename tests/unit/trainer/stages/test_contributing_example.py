"""CONTRIBUTING's example of a new stage, added to a copy of the project and run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[4]
RECIPE = """
run_name: example
output_dir: out
accelerate_config: recipes/accelerate/cpu.yaml
stages:
  - name: data
    script: scripts/make_data.py
    config: recipes/countdown/stages/data.yaml
    args: {demonstrations: 12, train: 2, validation: 2, test: 2, wandb: false}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout with the stage added as the text says: three files and an entry."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("rewards", "search", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("data", "trainer", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("- **A stage**")[2].partition("\n## ")[0]
    blocks = re.findall(r"  ```(?:python|yaml)\n(.*?)  ```", section, re.DOTALL)
    stage, launcher, entry, line = (textwrap.dedent(block) for block in blocks)
    for code in (stage, launcher):
        path = re.search(r"[\w/]+\.py", code.partition("\n")[0])
        assert path is not None and not (folder / path[0]).exists()
        (folder / path[0]).write_text(code)
    registry = folder / "trainer" / "runtime" / "stage_registry.py"
    start = "STAGES: dict[str, StageEntry] = {\n"
    head, found, tail = registry.read_text(encoding="utf-8").partition(start)
    assert found
    registry.write_text(head + start + textwrap.indent(entry, "    ") + tail)
    (folder / "recipe.yaml").write_text(RECIPE + textwrap.indent(line, "  ").rstrip() + "\n")
    return folder


def run_recipe(project: Path, *options: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "scripts/run_recipe.py", "recipe.yaml", *options],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_dry_run_knows_the_stage(project: Path) -> None:
    said = run_recipe(project, "--dry-run", "--smoke")
    assert "short: new" in said
    command = next(line for line in said.splitlines() if "keep_short_solutions.py" in line)
    assert "--data out-tiny/data --max_characters 30" in command  # from the entry


def test_the_stage_runs_in_a_recipe(project: Path) -> None:
    run_recipe(project, "--set", "short.max_characters=40")
    manifest = json.loads((project / "out/short/manifest.json").read_text())
    assert manifest["stage"] == "short_solutions" and manifest["metrics"]["read"] == 12
    rows = (project / "out/data/demonstrations.jsonl").read_text().splitlines()
    short = [row for row in rows if len(json.loads(row)["completion"]) <= 40]
    assert 0 < len(short) < 12
    assert (project / "out/short/demonstrations.jsonl").read_text().splitlines() == short
