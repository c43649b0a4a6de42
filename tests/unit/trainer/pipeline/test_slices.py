"""Named slices give the offsets that were worked out by hand, and overlaps are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.settings import ROOT
from data.slices import read_slices
from trainer.pipeline.recipe import load_pipeline, stage_settings

SEARCH = "scripts/run_search.py"
ROUND = "scripts/expert_iteration_round.py"
GATE = "scripts/gate_policy.py"
PPO = "scripts/train_ppo.py"


@pytest.mark.parametrize(
    ("recipe", "problems", "gates"),
    [
        (
            "countdown/demo",
            {"label_1": (0, 2000), "search_1": (2000, 1000), "search_2": (3000, 1000),
             "label_2": (5000, 1000)},
            {"round_1": (0, 2000), "round_2": (2000, 2000)},
        ),
        (
            "countdown/smoke",
            {"label_1": (0, 30), "search_1": (30, 20), "search_2": (50, 20), "label_2": (70, 30)},
            {"round_1": (0, 40), "round_2": (40, 40)},
        ),
        ("gsm8k/smoke", {"label_1": (0, 8), "search_1": (8, 4)}, {"round_1": (0, 12)}),
        (
            "countdown/learners",
            {"label": (0, 2000), "search_1": (2000, 450), "search_2": (4000, 450),
             "search_sft": (4000, 450), "ppo_outcome": (2000, 7000), "grpo": (2000, 7000)},
            {"round_1": (0, 2000), "round_2": (2000, 2000)},
        ),
        ("countdown/process_rewards", {"label": (0, 2000), "potential": (2000, 7000)}, {}),
        ("countdown/ablation", {"label": (0, 2000), "step_prm": (2000, 7000)}, {}),
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
    slices = read_slices(settings["data"]["slices"])
    for name, taken in problems.items():
        size = settings[name]["num_problems"]
        assert (slices[settings[name]["slice"]].start, size) == taken
        assert "skip" not in settings[name]
    for name, taken in gates.items():
        size = settings[name]["gate_problems"]
        assert (slices[settings[name]["gate_slice"]].start, size) == taken


def recipe_of(tmp_path: Path, *stages: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "run_name: r\noutput_dir: o\nstages:\n"
        "  - {name: data, script: scripts/make_data.py, args: {train: 12, validation: 8, "
        "slices: {train: {a: 6, b: 6}, validation: {one: 4, two: 4}}}}\n"
        + "".join(f"  - {stage}\n" for stage in stages)
    )
    return path


def search(name: str, args: str) -> str:
    return f"{{name: {name}, script: {SEARCH}, args: {{data: '{{data}}', policy: p, {args}}}}}"


def gated(name: str, args: str) -> str:
    return f"{{name: {name}, script: {ROUND}, args: {{data: '{{data}}', policy: p, {args}}}}}"


def gate_of(name: str, candidate: str, args: str) -> str:
    words = f"data: '{{data}}', incumbent: p, candidate: {candidate}, {args}"
    return f"{{name: {name}, script: {GATE}, args: {{{words}}}}}"


def ppo(name: str, args: str) -> str:
    return f"{{name: {name}, script: {PPO}, args: {{data: '{{data}}', policy: p, {args}}}}}"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([search("s", "slice: c")], "stage 's' names the unknown slice 'c'; allowed: "),
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
        (  # one hard problem may be any of the slice
            [search("s", "slice: one, num_problems: 1, labels: [l]"),
             gated("r", "gate_skip: 3, gate_problems: 1")],
            "stage 's' learns from problems of validation on which stage 'r' is measured",
        ),
        ([gate_of("g", "q", "gate_slice: a")], "gate_slice of stage 'g' is 'a', a slice of train"),
        (
            [search("s", "slice: one"), gate_of("g", "q", "gate_slice: one")],
            "stage 's' learns from problems of validation on which stage 'g' is measured",
        ),
        (
            [gated("r", "gate_slice: one"), gate_of("g", "q", "gate_skip: 3, gate_problems: 2")],
            "the gates of stages 'r' and 'g' use the same problems",
        ),
        (
            [ppo("rl", "slice: a, evaluation_problems: 5"),
             gate_of("g", "'{rl}'", "gate_slice: two")],
            "the gate of stage 'g' uses problems of validation on which 'rl' was evaluated",
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
        search("s", "slice: a, labels: [l]"), search("v", "slice: one, num_problems: 3"),
        gated("r", "gate_slice: two"),
    ]  # fmt: skip
    pipeline = load_pipeline(recipe_of(tmp_path, *stages))
    args = {stage.name: stage.args for stage in pipeline.stages}
    assert (args["s"]["slice"], args["s"]["num_problems"]) == ("a", 6)
    assert (args["v"]["slice"], args["v"]["num_problems"]) == ("one", 3)
    assert (args["r"]["gate_slice"], args["r"]["gate_problems"]) == ("two", 4)


def test_a_gate_takes_its_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stages = [
        ppo("rl", "slice: a, evaluation_problems: 4"), gate_of("g", "'{rl}'", "gate_slice: two"),
        search("s", "slice: b").replace("policy: p", "policy: '{g}'"),
        "{name: e, script: scripts/evaluate_run.py, args: {policies: all}}",
    ]  # fmt: skip
    pipeline = load_pipeline(recipe_of(tmp_path, *stages))
    found = {stage.name: stage for stage in pipeline.stages}
    assert found["g"].args["gate_problems"] == 4
    assert found["g"].inputs == ("data", "rl") and found["s"].inputs == ("data", "g")
    assert found["e"].args["policies"] == ["p", "{rl}", "{g}"]


def test_slices_of_a_data_stage_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = recipe_of(tmp_path)
    said = "stage 'data': slice 'b' ends at problem 12 of train, which has 10"
    with pytest.raises(ValueError, match=said):
        load_pipeline(path, ["data.train=10"])


def test_slices_at_the_top_of_a_recipe_are_told_their_place(tmp_path: Path) -> None:
    path = recipe_of(tmp_path)
    path.write_text("slices: {train: {a: 1}}\n" + path.read_text())
    with pytest.raises(ValueError, match="slices are written by the data stage"):
        load_pipeline(path)
