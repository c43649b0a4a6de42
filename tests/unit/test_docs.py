"""The documentation says what is there: commands, keys, messages, files; and the site builds."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.settings import nearest
from data.types import Problem, StepLabels, Usage
from search.base import Node, SearchEnd, SearchResult, Snapshot
from search.trees.files import result_to_json
from trainer.pipeline.recipe import load_pipeline
from trainer.runtime.manifests import write_manifest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# The files of recipes that a reader writes.
READERS = ("my.yaml", "RECIPE")
WRITTEN_BY_READERS = {"scripts/keep_short_solutions.py"}


def commands(text: str) -> list[list[str]]:
    """The words of every command in a page's blocks that runs a script."""
    found: list[list[str]] = []
    for _, block in FENCE.findall(text):
        lines = re.sub(r"\\\n", " ", block)
        lines = re.sub(r"'[^']*'", lambda quoted: quoted[0].replace("\n", " "), lines)
        for line in lines.splitlines():
            if re.search(r"^\s*(python|accelerate launch|PYTHONPATH=\. python) .*scripts/", line):
                found.append(shlex.split(line, comments=True))
    return found


@cache
def module(script: str) -> Any:
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@cache
def known_keys(script: str) -> frozenset[str]:
    """The options of a launcher: those of its configs, and of what its recipe chooses by name."""
    text = (ROOT / script).read_text(encoding="utf-8")
    if "\nCONFIGS = " not in text:
        return frozenset(re.findall(r'"--([\w-]+)"', text))
    kinds = set(module(script).CONFIGS)
    for entries in module("scripts/write_reference.py").choices().values():
        kinds |= set(entries.values())
    names = {field.name for kind in kinds for field in dataclasses.fields(kind) if field.init}
    return frozenset(names | {"config", "traceback"})


def check_command(words: list[str]) -> None:
    script = next(word for word in words if word.startswith("scripts/"))
    at = words.index(script)
    if script in WRITTEN_BY_READERS:
        return
    assert (ROOT / script).is_file(), script
    given = words[at + 1 :]
    for word in given:
        if word.startswith("--"):
            name = word[2:].partition("=")[0]
            known = known_keys(script)
            assert name in known, f"{script}: --{name}; did you mean --{nearest(name, known)}?"
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file(), word
    if script == "scripts/run_recipe.py" and given[0] not in READERS:
        settings = [given[i + 1] for i, word in enumerate(given) if word == "--set"]
        load_pipeline(ROOT / given[0], [value.replace("path/to/", "") for value in settings])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_names_a_script_and_keys_that_exist(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(page.read_text(encoding="utf-8")):
        check_command(words)


def test_a_wrong_key_or_script_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(AssertionError, match="did you mean --budgets"):
        check_command(["python", "scripts/solve.py", "--budget", "8"])
    with pytest.raises(AssertionError, match="absent"):
        check_command(["python", "scripts/absent.py"])
    with pytest.raises(ValueError, match="did you mean"):
        check_command(
            [
                "python",
                "scripts/run_recipe.py",
                "recipes/countdown/demo.yaml",
                "--set",
                "sfd.seed=1",
            ]
        )
    text = "```\npython scripts/solve.py \\\n  --x 1  # why\nls\n```\n"
    assert commands(text) == [["python", "scripts/solve.py", "--x", "1"]]


def test_the_example_recipe_of_your_own_problems_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = (DOCS / "start" / "your-problems.md").read_text(encoding="utf-8")
    recipe = "".join(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))  # with the first try's keys
    (tmp_path / "my.yaml").write_text(recipe)
    pipeline = load_pipeline(tmp_path / "my.yaml")
    assert pipeline.run_name == "my-problems"
    assert pipeline.stages[0].args["train_file"] == "train.jsonl"


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        pass

    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]

    def pages(item: Any) -> list[str]:
        if isinstance(item, str):
            return [item]
        values = item.values() if isinstance(item, dict) else item
        return [page for value in values for page in pages(value)]

    there = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
    assert sorted(pages(nav)) == there


def texts_in_code() -> set[str]:
    """Every text in the code; in an f-string, `...` stands for what is filled in."""
    found: set[str] = set()
    for package in ("data", "rewards", "search", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
                    found.add("".join(str(part) for part in parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def test_every_message_in_troubleshooting_stands_in_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert len(quoted) >= 20
    texts = texts_in_code()
    shortened = [message.removesuffix("...") for message in quoted]
    assert [message for message in shortened if not any(message in text for text in texts)] == []


def rows_of(page: str, heading: str) -> set[str]:
    """The names in the first column of the tables below a heading."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_the_page_of_files_lists_what_is_written(tmp_path: Path) -> None:
    page = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    names = {field.name for field in dataclasses.fields(StepLabels)}
    assert rows_of(page, "Step labels") == names
    problem = Problem(id="p", prompt="1 2", answer="3")
    assert rows_of(page, "Problems and demonstrations") == {
        "completion",
        *(field.name for field in dataclasses.fields(problem)),
    }
    snapshot = Snapshot(budget=1, answer="", answer_node=0, truncated=False, usage=Usage())
    result = SearchResult(
        problem=problem, strategy="mcts", nodes=(Node(id=0, parent=-1, token_ids=(), text=""),),
        snapshots=(snapshot,), usage=Usage(), end=SearchEnd.COMPLETE,
    )  # fmt: skip
    row = result_to_json(result, "policy")
    assert rows_of(page, "Trees") == {*row, *row["nodes"][0]}
    manifest = write_manifest(tmp_path, stage="data", recipe={}, seed=1)
    assert rows_of(page, "`manifest.json`") == set(yaml.safe_load(manifest.read_text()))


@pytest.mark.slow
def test_the_site_builds_strictly_and_names_nothing_elsewhere(tmp_path: Path) -> None:
    """Warnings are errors: a missing page, link or anchor. Pages load nothing from a network."""
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    for name in ("http_proxy", "https_proxy"):  # a closed port: there is no network
        environment |= {name: "http://127.0.0.1:9", name.upper(): "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    loading = r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=[\"']?((?:https?:)?//[^\s\"'>]+)"
    for page in pages:
        assert re.findall(loading, page.read_text(encoding="utf-8")) == [], page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()[\"' ]*https?://", sheet.read_text("utf-8"))
    assert (tmp_path / "assets" / "iframe-worker.js").is_file()
    text = (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
    assert "Yield the result of each problem when its search ends." in text
