"""The checkout's shape: names that would break a launcher, and what the README promises."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "rewards", "search", "trainer")


def test_no_script_hides_a_module() -> None:
    """`accelerate launch` puts scripts/ first on the path: a script's name shadows any module."""
    installed = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    names = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert len(names) >= 9
    assert names & (installed | set(PACKAGES)) == set()


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
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 220
    assert "## " in (ROOT / "CHANGELOG.md").read_text()


def test_every_path_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    paths = set(
        re.findall(r"\b((?:recipes|scripts|docs|tests|data|search|trainer)/[\w./-]+\w)", text)
    )
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert "make demo" in text and "make test" in text
