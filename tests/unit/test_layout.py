"""The checkout's shape: names that would break a launcher, and what the README promises."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "rewards", "search", "trainer")
FOLDERS = (*PACKAGES, "docs", "recipes", "scripts", "tests")
# Launchers that run no stage.
NO_STAGE = ("doctor", "measure_gpu", "merge_adapter", "run_recipe", "serve", "serve_prm", "solve")
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The files of CONTRIBUTING's examples, which a reader would add.
TO_WRITE = {
    "rewards/verifiers/colours.py",
    "search/strategies/greedy_steps.py",
    "tests/unit/rewards/verifiers/test_colour_verifier.py",
    "trainer/stages/short_solutions.py",
    "scripts/keep_short_solutions.py",
}


def test_no_script_hides_a_module() -> None:
    """`accelerate launch` puts scripts/ first on the path: a script's name shadows any module."""
    installed = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    names = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert names & (installed | set(PACKAGES)) == set()


def test_every_stage_has_a_launcher_and_every_launcher_calls_what_there_is() -> None:
    stages = {path.stem for path in (ROOT / "trainer/stages").glob("[!_]*.py")}
    launched: set[str] = set()
    for script in sorted((ROOT / "scripts").glob("*.py")):
        text = script.read_text()
        called = re.findall(r"^from trainer\.stages\.(\w+) import", text, re.M)
        assert called or script.stem in NO_STAGE, script.name
        assert len(called) <= 1, f"{script.name} launches one stage"
        assert 'if __name__ == "__main__":' in text, script.name
        launched |= set(called)
    assert launched == stages
    assert all((ROOT / "scripts" / f"{name}.py").is_file() for name in NO_STAGE)


def test_packages_are_the_checkouts_as_a_launcher_sees_them(tmp_path: Path) -> None:
    code = (
        "import importlib, json, sys; sys.path[0] = sys.argv[1]; "
        f"print(json.dumps([importlib.import_module(n).__file__ for n in {PACKAGES}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "scripts")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [Path(name).resolve() for name in json.loads(done.stdout)]
    assert files == [ROOT / name / "__init__.py" for name in PACKAGES]


def test_data_is_not_ignored_by_git() -> None:
    lines = (ROOT / ".gitignore").read_text().split()
    assert "/outputs/" in lines
    assert not {"data", "data/", "/data", "/data/"} & set(lines)


def test_licence_and_guides() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 280
    assert "## " in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_path_in_the_guides_exists(guide: Path) -> None:
    """Paths from the checkout's root, and links from the page's own folder."""
    text = guide.read_text()
    named = rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)"
    paths = set(re.findall(named, text)) - TO_WRITE
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    links = re.findall(r"\]\(([^)#\s]+)", text)
    here = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in here if not (guide.parent / link).exists()] == []


def test_the_guides_name_every_package_and_how_to_begin() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text and "make test" in text
    for folder in FOLDERS:
        named = [guide.name for guide in GUIDES if f"{folder}/" in guide.read_text()]
        assert named, f"no guide names {folder}/"
