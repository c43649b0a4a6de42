"""The tables of verifiers agree, and CONTRIBUTING's example of a new one runs as it is printed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from data.types import Problem
from rewards.verifiers.by_name import ANSWER_FORMATS, VERIFIERS, answer_format
from rewards.verifiers.final_answers import FINAL_ANSWERS
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.stages.data import DataConfig, run_data, task_config_type

CONTRIBUTING = Path(__file__).parents[4] / "CONTRIBUTING.md"
TABLES = {
    "VERIFIERS": VERIFIERS, "ANSWER_FORMATS": ANSWER_FORMATS, "FINAL_ANSWERS": FINAL_ANSWERS
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LaterStageConfig:
    data: str
    verifier: str


def test_every_verifier_is_in_every_table() -> None:
    for table in TABLES.values():
        assert table.keys() == VERIFIERS.keys()


def test_a_verifier_without_an_answer_format_is_told_where_to_add_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(VERIFIERS, "colour", VERIFIERS["math"])
    with pytest.raises(ValueError, match="'colour' has no line in ANSWER_FORMATS of rewards/v"):
        answer_format("colour")


def load(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The block of code as a module, under the name of the file in its first line."""
    named = re.match(r"# [\w/]+/(\w+)\.py", code)
    assert named is not None
    path = folder / f"{named[1]}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(named[1], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, named[1], module)
    spec.loader.exec_module(module)
    return module


def test_one_file_three_lines_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    section = text.partition("- **A verifier**")[2].partition("\n- **")[0]
    blocks = re.findall(r"  ```(?:python|yaml)\n(.*?)  ```", section, re.DOTALL)
    code, lines, its_test, key = (textwrap.dedent(block) for block in blocks)
    module = load(code, tmp_path, monkeypatch)
    entries = re.findall(r"^# [\w/]+\.py, in (\w+):.*\n(.*)\n", lines, re.MULTILINE)
    assert [table for table, _ in entries] == list(TABLES)
    for table, entry in entries:
        for name, value in eval(f"{{{entry}}}", vars(module)).items():
            monkeypatch.setitem(TABLES[table], name, value)
    load(its_test, tmp_path, monkeypatch).test_the_last_colour_word_counts()
    problem = Problem(id="p", prompt="", answer="red")
    votes = [FINAL_ANSWERS["colours"](problem, t) for t in ("Red", "blue? red", "reddish ")]
    assert votes == ["red", "red", "reddish"]
    assert answer_format("colours") == "the last colour word"

    files: list[str] = []
    for i, name in enumerate(("demonstrations", "train", "validation", "test")):
        row = {"problem": f"Colour {i}?", "answer": "red", "solution": "red"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        files += [f"--{name}_file", str(tmp_path / f"{name}.jsonl")]
    said = [word for k, v in yaml.safe_load(key)["data"].items() for word in (f"--{k}", v)]
    words = ["--task", "math", *files, *said, "--output_dir", str(tmp_path / "data")]
    kinds = (RuntimeConfig, DataConfig, task_config_type(words))
    run_data(*parse_recipe(kinds, words))
    assert parse_recipe((LaterStageConfig,), ["--data", str(tmp_path / "data")])[0].verifier == (
        "colours"
    )
