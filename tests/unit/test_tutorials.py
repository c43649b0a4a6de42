"""The tutorials run as they are printed, and print what they say."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
FEW_UPDATES = {"max_steps": "4", "warmup_steps": "1", "demonstrations": "60"}


def run_page(name: str) -> list[tuple[str, str]]:
    """Run the page's blocks in the working directory: Python in one namespace, commands in this
    process. Returns (what a block printed, what the page says that it prints)."""
    space: dict[str, Any] = {}
    compared: list[tuple[str, str]] = []
    printed = ""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    for kind, block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(block, f"{name}.md", "exec"), space)
            printed = output.getvalue()
        elif kind == "text":
            compared.append((printed, block))
        else:
            for line in block.replace("\\\n", " ").splitlines():
                run_command(shlex.split(line))
    return compared


def run_command(words: list[str]) -> None:
    assert words[0] == "python"
    for key, value in FEW_UPDATES.items():
        if f"--{key}" in words:
            words[words.index(f"--{key}") + 1] = value
    path = ROOT / words[1]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words[1:])
        assert not module.main()


def test_search_with_a_toy_policy_and_its_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, outputs in (("search-with-a-toy-policy", 1), ("trees-in-pandas", 4)):
        compared = run_page(name)
        assert len(compared) == outputs
        for printed, said in compared:
            assert printed == said


@pytest.mark.slow
def test_a_reward_model_on_your_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    assert run_page("reward-model-on-your-labels") == []
    assert (tmp_path / "outputs/tutorial/prm/model.safetensors").is_file()
