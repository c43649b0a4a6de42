"""A recipe as a trial of a W&B sweep: the agent's words, the trial's folder, and its one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.wandb_files import logged_with
from trainer.pipeline.launch import child_environment
from trainer.pipeline.recipe import load_pipeline
from trainer.pipeline.run import selected_stages
from trainer.pipeline.sweep import expanded, log_trial, trial_of_a_sweep, trial_overrides
from trainer.runtime.manifests import write_json

DEMO = "recipes/countdown/demo.yaml"
AGENT = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "t1", "WANDB_SWEEP_PARAM_PATH": "none.yaml"}


def test_a_json_mapping_becomes_an_override_per_item() -> None:
    mapping = json.dumps({"sft.learning_rate": 1e-05, "seed": 3, "sft.bf16": True, "a": "x: y"})
    words = expanded(["run_name=r", mapping])
    assert words == ["run_name=r", "sft.learning_rate=1e-05", "seed=3", "sft.bf16=true", 'a="x: y"']
    with pytest.raises(ValueError, match="is not JSON"):
        expanded(["{seed: 3}"])


def test_numbers_of_an_agent_reach_the_stage_as_numbers() -> None:
    pipeline = load_pipeline(DEMO, expanded([json.dumps({"sft.learning_rate": 1e-05, "seed": 4})]))
    sft = next(stage for stage in pipeline.stages if stage.name == "sft")
    assert (float(sft.args["learning_rate"]), pipeline.seed) == (1e-05, 4)


def test_every_trial_has_a_folder_of_its_own() -> None:
    words = trial_overrides(DEMO, ["output_dir=outputs/x"], "t1")
    assert load_pipeline(DEMO, words).output_dir == "outputs/x-sweep/t1"


def test_stages_do_not_take_the_run_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial_of_a_sweep() is None
    for name, value in AGENT.items():
        monkeypatch.setenv(name, value)
    assert trial_of_a_sweep() == "t1"
    assert not AGENT.keys() & child_environment(1).keys()


def test_stages_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(DEMO)

    def names(*options: str | None) -> list[str]:
        return [stage.name for stage in selected_stages(pipeline, *options)]

    assert names(None, None, "sft") == ["data", "sft"]
    assert names("sft", None, "label_1") == ["sft", "label_1"]
    with pytest.raises(ValueError, match="--until data comes before --from sft"):
        names("sft", None, "data")
    with pytest.raises(ValueError, match="--until or --only"):
        names(None, "sft", "sft")
    with pytest.raises(ValueError, match="did you mean 'sft'"):
        names(None, None, "sftt")


def test_the_trials_run_has_the_numbers_of_all_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    pipeline = load_pipeline(DEMO, [f"output_dir={tmp_path}"])
    for name, metrics in (("sft", {"validation_accuracy": 0.25}), ("round_1", {"gate": {"n": 7}})):
        (tmp_path / name).mkdir()
        manifest = {"format": "thinktree-manifest", "metrics": {**metrics, "text": "left out"}}
        write_json(tmp_path / name / "manifest.json", manifest)
    log_trial(pipeline, "t1")
    [written] = tmp_path.glob("wandb/offline-run-*/run-t1.wandb")
    logged = logged_with(written, "round_1/gate/n")
    assert logged["sft/validation_accuracy"] == "0.25"
    assert not [name for name in logged if "text" in name]
