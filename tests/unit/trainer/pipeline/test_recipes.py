"""The recipes that are shipped: every stage's launcher takes what its stage says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from data.settings import ROOT
from trainer.pipeline.recipe import load_pipeline, stage_words
from trainer.runtime.manifests import write_json


def taken(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configs that a launcher would hand to its stage."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[Any] = []
    [name] = [name for name in vars(module) if name.startswith("run_")]
    monkeypatch.setattr(module, name, lambda *configs: found.extend(configs))
    monkeypatch.setattr(sys, "argv", [script, *words])
    module.main()
    return found


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("countdown/demo", ()),
        ("countdown/demo", ("learner=ppo",)),
        ("countdown/smoke", ("learner=ppo",)),
        ("countdown/learners", ()),
        ("countdown/ablation", ()),
        ("countdown/thinking_smoke", ("thoughts.leave_out=correction",)),
        ("smollm2-135m/full", ()),
        ("smollm2-135m/gsm8k", ("learner=ppo",)),
        ("countdown/reach", ()),
    ],
)
def test_every_launcher_takes_its_stage(
    recipe: str, overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # as accelerate's launcher says it of cpu.yaml
    pipeline = load_pipeline(f"recipes/{recipe}.yaml", (*overrides, f"output_dir={tmp_path}"))
    assert pipeline.accelerate_config == "recipes/accelerate/cpu.yaml"
    task = "countdown" if recipe.startswith("countdown") else "math"
    for stage in pipeline.stages:
        makes_data = stage.name in ("data", "thoughts")
        said = {"task": task} if makes_data else {"verifier": task}
        write_json(pipeline.folder(stage.name) / "manifest.json", {"recipe": said})
    for stage in pipeline.stages:
        script, *words = stage_words(pipeline, stage)
        assert taken(script, words, monkeypatch), stage.name


def test_learners_and_ablation_cross_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ablation = load_pipeline("recipes/countdown/ablation.yaml", ["cycles=3"])
    runs = [stage.args for stage in ablation.stages if stage.script.endswith("train_ppo.py")]
    assert {(run["shape"], run["critic"]) for run in runs} == {
        ("outcome", "policy"), ("outcome", "reward_model"), ("potential", "policy"),
        ("potential", "reward_backbone"), ("min_form", "policy"), ("min_form", "reward_backbone"),
        ("step", "policy"), ("step", "reward_backbone"),
    }  # fmt: skip
    assert {run["cycles"] for run in runs} == {3}
    learners = load_pipeline("recipes/countdown/learners.yaml", ["rloo.max_steps=1"])
    args = {stage.name: stage.args for stage in learners.stages}
    # What shares its settings in the file is overridden alone.
    assert (args["grpo"]["max_steps"], args["rloo"]["max_steps"]) == (80, 1)
    assert {args[f"control_{name}"].get("outcome") for name in ("random", "format")} == {
        "random", "format",
    }  # fmt: skip
    # As many solutions: PPO's, those of a step of GRPO, and of half of PPO beside a search.
    ppo = args["ppo_outcome"]
    assert ppo["cycles"] * ppo["problems_per_cycle"] * 4 == 80 * args["grpo"][
        "per_device_train_batch_size"
    ] == 2 * args["ppo_search"]["cycles"] * ppo["problems_per_cycle"] * 4  # fmt: skip
    # Whoever was evaluated is in the report.
    for pipeline in (ablation, learners):
        by_name = {stage.name: stage.args for stage in pipeline.stages}
        stages = by_name["report"]["stages"]
        assert set(by_name["evaluate"]["policies"]) <= set(stages)
        assert stages == [f"{{{stage.name}}}" for stage in pipeline.stages[:-1]]
