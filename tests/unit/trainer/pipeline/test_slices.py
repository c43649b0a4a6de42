"""Named slices give the offsets that were worked out by hand, and overlaps are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.pipeline.launch import ROOT
from trainer.pipeline.plan import stage_settings
from trainer.pipeline.recipe import load_pipeline
from trainer.pipeline.slices import Slice, read_slices

SEARCH = "scripts/run_search.py"
ROUND = "scripts/expert_iteration_round.py"


def test_slices_follow_one_another_in_their_split() -> None:
    slices = read_slices({"train": {"a": 3, "b": 2, "c": 4}, "validation": {"gate": 5}})
    assert slices == {
        "a": Slice(split="train", start=0, size=3),
        "b": Slice(split="train", start=3, size=2),
        "c": Slice(split="train", start=5, size=4),
        "gate": Slice(split="validation", start=0, size=5),
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "must map each split to a mapping of sizes by name"),
        ({"trian": {"a": 1}}, "did you mean 'train'"),
        ({"train": {"a": -1}}, "slice 'a' has size -1; allowed: 0 or more"),
        ({"train": {"a": 1}, "test": {"a": 1}}, "two slices have the name 'a'"),
    ],
)
def test_a_wrong_slice_is_named(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_slices(value)


@pytest.mark.parametrize(
    ("recipe", "problems", "gates"),
    [
        (
            "countdown/demo",
            {"label_1": (0, 2000), "search_1": (2000, 1200), "search_2": (3200, 1200),
             "label_2": (5000, 2500)},
            {"round_1": (0, 2000), "round_2": (2000, 2000)},
        ),
        (
            "countdown/smoke",
            {"label_1": (0, 30), "search_1": (30, 20), "search_2": (50, 20), "label_2": (70, 30)},
            {"round_1": (0, 40), "round_2": (40, 40)},
        ),
        ("gsm8k/smoke", {"label_1": (0, 8), "search_1": (8, 4)}, {"round_1": (0, 12)}),
    ],
)  # fmt: skip
def test_recipes_read_the_problems_that_they_say(
    recipe: str,
    problems: dict[str, tuple[int, int]],
    gates: dict[str, tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    pipeline = load_pipeline(f"recipes/{recipe}.yaml")
    settings = {stage.name: stage_settings(stage) for stage in pipeline.stages}
    for name, taken in problems.items():
        assert (settings[name]["skip"], settings[name]["num_problems"]) == taken
        assert "slice" not in settings[name]
    for name, taken in gates.items():
        assert (settings[name]["gate_skip"], settings[name]["gate_problems"]) == taken


def recipe_of(tmp_path: Path, *stages: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "run_name: r\noutput_dir: o\n"
        "slices: {train: {a: 6, b: 6}, validation: {one: 4, two: 4}}\nstages:\n"
        "  - {name: data, script: scripts/make_data.py, args: {train: 10, validation: 8}}\n"
        + "".join(f"  - {stage}\n" for stage in stages)
    )
    return path


def search(name: str, args: str) -> str:
    return f"{{name: {name}, script: {SEARCH}, args: {{data: '{{data}}', policy: p, {args}}}}}"


def gated(name: str, args: str) -> str:
    return f"{{name: {name}, script: {ROUND}, args: {{data: '{{data}}', policy: p, {args}}}}}"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([search("s", "slice: c")], "stage 's' names the unknown slice 'c'; did you mean"),
        ([search("s", "slice: b")], "slice 'b' of stage 's' ends at problem 12 of train.* has 10"),
        ([gated("r", "gate_slice: a")], "gate_slice of stage 'r' is 'a', a slice of train"),
        (
            [search("s", "slice: one"), gated("r", "gate_slice: one")],
            "stage 's' learns from problems of validation on which stage 'r' is measured",
        ),
        (
            [search("s", "split: validation, skip: 7, num_problems: 1"),
             gated("r", "gate_slice: two")],
            "stage 's' learns from problems of validation on which stage 'r' is measured",
        ),
        (
            [gated("r", "gate_slice: one"), gated("t", "gate_skip: 3, gate_problems: 2")],
            "the gates of stages 'r' and 't' use the same problems",
        ),
    ],
)  # fmt: skip
def test_an_overlap_is_an_error_before_anything_runs(
    stages: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=said):
        load_pipeline(recipe_of(tmp_path, *stages))


def test_slices_beside_each_other_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stages = [
        search("s", "slice: a"), search("v", "slice: one"),
        gated("r", "gate_slice: two"),
    ]  # fmt: skip
    pipeline = load_pipeline(recipe_of(tmp_path, *stages))
    args = {stage.name: stage.args for stage in pipeline.stages}
    assert (args["v"]["split"], args["v"]["skip"], args["v"]["num_problems"]) == (
        "validation", 0, 4,
    )  # fmt: skip
    assert (args["r"]["gate_skip"], args["r"]["gate_problems"]) == (4, 4)
