"""The table of recipes names every recipe once, and each link leads to a file."""

from __future__ import annotations

import re
from collections import Counter

import yaml

from data.settings import ROOT

FOLDER = ROOT / "recipes"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
NOT_IN_THE_TABLE = ("accelerate", "smoke_rows", "sweeps")


def test_every_recipe_has_one_row_and_every_row_a_recipe() -> None:
    linked = Counter(re.findall(r"^\| \[[^\]]+\]\(([^)]+\.yaml)\)", README, re.MULTILINE))
    there = {
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*.yaml")
        if path.relative_to(FOLDER).parts[0] not in NOT_IN_THE_TABLE
    }
    assert set(linked) == there
    assert set(linked.values()) == {1}


def test_every_link_of_the_table_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 60
    assert [link for link in links if not (FOLDER / link).is_file()] == []


def test_whole_runs_and_single_stages_lie_apart() -> None:
    """A whole run stands in recipes/<name>/, what it names in recipes/<name>/stages/."""
    for path in FOLDER.rglob("*.yaml"):
        is_run = bool({"stages", "extends"} & yaml.safe_load(path.read_text()).keys())
        parts = path.relative_to(FOLDER).parts
        if parts[0] not in (*NOT_IN_THE_TABLE, "labels"):
            assert is_run == ("stages" not in parts), path


def test_what_the_header_says_was_not_run_is_not_called_measured() -> None:
    for row in re.findall(r"^\| \[.*$", README, re.MULTILINE):
        [recipe, *_] = re.findall(r"\]\(([^)]+\.yaml)\)", row)
        text = (FOLDER / recipe).read_text(encoding="utf-8")
        head = " ".join(line for line in text.splitlines() if line.startswith("#"))
        if "ot yet run" in head and recipe not in ("countdown/demo.yaml",):
            assert "[yes]" not in row, recipe


def test_the_header_of_every_recipe_has_the_command_that_runs_it() -> None:
    for path in FOLDER.rglob("*.yaml"):
        parts = path.relative_to(FOLDER).parts
        if parts[0] in NOT_IN_THE_TABLE:
            continue
        head = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
        recipe = path.relative_to(ROOT)
        is_stage = "stages" in parts or parts[0] == "labels"
        start = "# accelerate launch" if is_stage else "python scripts/run_recipe.py"
        commands = [line for line in head if start in line]
        named = rf"--config {recipe} " if is_stage else rf"run_recipe.py {recipe}( |$)"
        assert any(re.search(named, line) for line in commands), recipe
