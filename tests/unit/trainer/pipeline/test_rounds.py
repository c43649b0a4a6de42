"""Stages that run in every round: their names, what they read, and when the rounds end early."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from data.settings import ROOT
from trainer.pipeline import launch
from trainer.pipeline import run as running
from trainer.pipeline.recipe import Pipeline, load_pipeline
from trainer.pipeline.rounds import Numbers, expand_rounds
from trainer.pipeline.run import run_pipeline, selected_stages, settled

SCRIPT = '''
"""Keeps its name in calls.txt. With `kept`, it has a gate: round i was kept if `kept` has i."""
import argparse
from pathlib import Path
from trainer.runtime.manifests import write_manifest

p = argparse.ArgumentParser()
for name in ("output_dir", "seed", "run_name", "run_group", "kept", "stages", "read"):
    p.add_argument("--" + name, nargs="*")
a = p.parse_args()
out = Path(a.output_dir[0])
out.mkdir(parents=True, exist_ok=True)
with (out.parent / "calls.txt").open("a") as calls:
    calls.write(a.run_name[0] + "\\n")
gate = {"gate": {"accepted": a.run_name[0][-1] in a.kept[0]}} if a.kept else {}
write_manifest(out, stage=a.run_name[0], recipe={}, seed=5, metrics=gate)
'''
RECIPE = """
run_name: toy
output_dir: out
accelerate_config: cpu.yaml
rounds: 5
stop_after_refusals: 2
values: {kept: "13"}
stages:
  - {name: first_0, script: scripts/make.py, args: {read: ["of <n>"]}}
  - each_round:
      - {name: search_<i>, script: scripts/make.py, args: {read: "{first_<i-1>}"}}
      - name: first_<i>
        script: scripts/make.py
        args: {read: ["{search_<1..i>}"], kept: $kept}
  - {name: last, script: scripts/make.py, args: {read: "{first_<n>}", stages: all}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "make.py").write_text(SCRIPT)
    (tmp_path / "cpu.yaml").write_text((ROOT / "recipes/accelerate/cpu.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "launcher_words", lambda _: ([sys.executable], ["launch"]))
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.02)
    return tmp_path


def run(*overrides: str, until: str | None = None) -> tuple[list[str], Pipeline]:
    """The stages that were called, and the pipeline as the disk has it then."""
    recipe = settled(load_pipeline("recipe.yaml", overrides))
    calls = Path(recipe.output_dir) / "calls.txt"
    calls.unlink(missing_ok=True)
    assert run_pipeline(recipe, selected_stages(recipe, None, None, until), "again") == 0
    return calls.read_text().split() if calls.exists() else [], settled(recipe)


def args_of(pipeline: Pipeline) -> dict[str, Any]:
    return {stage.name: stage.args for stage in pipeline.stages}


def test_rounds_are_written_out(project: Path) -> None:
    all_stages = ("first_0", "search_1", "first_1", "search_2", "first_2")
    pipeline = load_pipeline("recipe.yaml", ["rounds=2", "search_<i>.kept=r<i>", "first_2.seed=9"])
    assert pipeline.rounds == (("search_1", "first_1"), ("search_2", "first_2"))
    assert args_of(pipeline) == {
        "first_0": {"read": ["of 2"]},
        "search_1": {"read": "{first_0}", "kept": "r1"},
        "first_1": {"read": ["{search_1}"], "kept": "13"},
        "search_2": {"read": "{first_1}", "kept": "r2"},
        "first_2": {"read": ["{search_1}", "{search_2}"], "kept": "13", "seed": 9},
        "last": {
            "read": "{first_2}",
            "stages": [f"{{{name}}}" for name in all_stages],
        },
    }


def test_numbers_in_lists_and_mappings() -> None:
    row = {"a": ["<1..i-1>", "x<i..n>"], "b": {"s_<1..2>": {"of": "{t_<1..2>} in <n>"}}, "c": "<b>"}
    rows, names = expand_rounds([{"each_round": [{"name": "s<i>", "args": row}]}], 2)
    assert names == (("s1",), ("s2",))
    mapping = {"s_1": {"of": "{t_1} in 2"}, "s_2": {"of": "{t_2} in 2"}}
    assert rows[0]["args"] == {"a": ["x1", "x2"], "b": mapping, "c": "<b>"}
    assert rows[1]["args"] == {"a": ["1", "x2"], "b": mapping, "c": "<b>"}
    assert Numbers(i=3, n=7).value("n-10") == -3


def test_rounds_end_after_refusals_in_a_row(project: Path) -> None:
    """Rounds 1 and 3 are kept, 2 and 4 are not: with 5 the second refusal in a row comes last."""
    calls, now = run()
    assert calls[-3:] == ["search_5", "first_5", "last"] and len(now.rounds) == 5


def test_stages_behind_rounds_that_end_early(project: Path) -> None:
    calls, now = run("kept='1'")
    assert calls[-5:] == ["search_2", "first_2", "search_3", "first_3", "last"]
    assert len(now.rounds) == 3
    assert args_of(now)["first_0"] == {"read": ["of 5"]}  # so the first stages do not change
    assert args_of(now)["last"]["read"] == "{first_3}"
    assert len(args_of(now)["last"]["stages"]) == 7
    assert run("kept='1'")[0] == []
    assert run("kept='1'", "last.kept=x")[0] == ["last"]
    assert run("kept='1'", "stop_after_refusals=null")[0][:2] == ["search_4", "first_4"]


def test_a_run_goes_on_in_its_round_and_starts_none_behind_the_last(project: Path) -> None:
    assert run("kept=''", until="search_2")[0][-1] == "search_2"
    assert run("kept=''", until="first_2")[0] == ["first_2"]
    calls, now = run("kept=''")
    assert (calls, len(now.rounds)) == (["last"], 2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds: 5\n", "", "each_round needs the key rounds"),
        ("rounds: 5", "rounds: none", "rounds must be a whole number of at least 1, got 'none'"),
        ("- each_round:", "- each_round: []\n  - each_round:", "needs one each_round .* not 2"),
        ("refusals: 2", "refusals: 0", "stop_after_refusals is 0; it must be a whole number"),
        ("- name: first_<i>", "- name: first_0", "'first_0' is used more than once"),
        ("{first_<n>}", "{first_<i>}", "<i> is the number of a round: use it in each_round only"),
        ("{first_<i-1>}", "{first_<i>}", "reads 'first_1', which is not an earlier stage"),
    ],
)
def test_mistakes_in_rounds(project: Path, old: str, new: str, said: str) -> None:
    (project / "recipe.yaml").write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        load_pipeline("recipe.yaml")
