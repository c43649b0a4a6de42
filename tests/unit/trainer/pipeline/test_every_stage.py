"""`all` stands for the stages that a hand-kept list would name."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.settings import ROOT
from trainer.pipeline.recipe import load_pipeline

DEMO = "recipes/countdown/demo.yaml"


@pytest.mark.parametrize(
    ("learner", "policies"),
    [
        ("expert_iteration", ["{sft}", "{round_1}", "{round_2}", "{control_more_updates}"]),
        ("ppo", ["{sft}", "{ppo}", "{control_more_updates}"]),
    ],
)
def test_all_follows_the_stages_of_the_run(
    learner: str, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    pipeline = load_pipeline(DEMO, [f"learner={learner}"])
    *earlier, evaluate, report = pipeline.stages
    assert evaluate.args["policies"] == policies
    assert report.args["stages"] == [f"{{{stage.name}}}" for stage in (*earlier, evaluate)]
    assert report.inputs == tuple(stage.name for stage in (*earlier, evaluate))


def test_all_policies_have_the_model_in_the_place_of_sft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "run_name: r\noutput_dir: o\nstages:\n"
        "  - {name: label, script: scripts/label_steps.py, args: {policy: org/model}}\n"
        "  - {name: search, script: scripts/run_search.py, args: {policy: org/model}}\n"
        "  - {name: rl, script: scripts/train_ppo.py, args: {policy: org/model}}\n"
        "  - {name: evaluate, script: scripts/evaluate_run.py, args: {policies: all}}\n"
    )
    assert load_pipeline(recipe).stages[-1].args["policies"] == ["org/model", "{rl}"]


def test_all_policies_need_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "run_name: r\noutput_dir: o\nstages:\n"
        "  - {name: evaluate, script: scripts/evaluate_run.py, args: {policies: all}}\n"
    )
    with pytest.raises(
        ValueError, match="policies of stage 'evaluate' is all, but no earlier stage"
    ):
        load_pipeline(recipe)


def test_a_recipe_sets_the_values_of_the_one_that_it_extends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's `set` is the command line's `--set`, and the command line holds."""
    monkeypatch.chdir(ROOT)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"extends: {DEMO}\nrun_name: r\noutput_dir: o\n"
        "set: {learner: ppo, sft: {max_steps: 3}}\n"
    )
    pipeline = load_pipeline(recipe)
    assert "ppo" in [stage.name for stage in pipeline.stages]
    assert {stage.name: stage.args for stage in pipeline.stages}["sft"]["max_steps"] == 3
    other = load_pipeline(recipe, ["learner=expert_iteration"])
    assert "ppo" not in [stage.name for stage in other.stages]
