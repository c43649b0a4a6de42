"""The example of a sweep, as the agent of W&B would start a trial of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from data.settings import ROOT
from tests.unit.wandb_files import logged_with

pytestmark = pytest.mark.slow
SWEEP = ROOT / "recipes/sweeps/sft.yaml"


def test_a_trial_reports_the_metric_of_the_sweep(checkout: Any, tmp_path: Path) -> None:
    sweep = yaml.safe_load(SWEEP.read_text())
    drawn = {"sft.learning_rate": 0.001, "sft.weight_decay": 0.0, "seed": 2}
    assert drawn.keys() == sweep["parameters"].keys()
    values = create_sweep_command_args({"args": {k: {"value": v} for k, v in drawn.items()}})
    values |= {"interpreter": [sys.executable], "program": [sweep["program"]], "env": []}
    command: list[str] = []
    for word in create_sweep_command(sweep["command"]):
        command += values[word[2:-1]] if word.startswith("${") else [word]
    command += ["--smoke", "--set", f"output_dir={tmp_path}/out"]
    checkout.run(
        command, WANDB_MODE="offline", WANDB_SWEEP_ID="s1", WANDB_RUN_ID="t1", OMP_NUM_THREADS="1"
    )
    folder = tmp_path / "out-sweep" / "t1"
    [written] = folder.glob("wandb/offline-run-*/run-t1.wandb")
    assert sweep["metric"]["name"] in logged_with(written, sweep["metric"]["name"])
    own = [path.name for path in folder.glob("*/wandb/offline-run-*/run-*.wandb")]
    assert len(own) == 2 and "run-t1.wandb" not in own
