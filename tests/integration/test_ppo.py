"""PPO as a user launches it: one process or two, killed and resumed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow


def words_of(smoke_run: Path, folder: Path, *more: str) -> list[str]:
    at = {name: str(smoke_run / name) for name in ("round_2", "prm_2", "data", "search_2")}
    return [
        *("--policy", at["round_2"], "--reward_model", at["prm_2"], "--data", at["data"]),
        *("--output_dir", str(folder), "--problems_per_cycle", "16", "--micro_batch_size", "16"),
        *("--evaluation_problems", "20", "--evaluate_every", "2", "--shape", "potential"),
        *("--critic", "reward_backbone", "--trajectories", at["search_2"]),
        *("--imitation_coefficient", "0.1", "--save_every", "2", *more),
    ]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def test_ppo_in_place_of_expert_iteration(smoke_run: Path, checkout: Any, tmp_path: Path) -> None:
    """What comes before the learner is kept; PPO learns from the search's problems and solutions,
    and the report shows it."""
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder)
    small = ["best_of_n=[2]", "budgets=[1]", "greedy_problems=10", "search_problems=2"]
    small += ["prm_problems=2", "making_problems=2"]
    words = [word for key in small for word in ("--set", f"evaluate.{key}")]
    printed = checkout.run([*checkout.recipe(folder), "--set", "learner=ppo", *words])
    assert printed.count("unchanged, skipped") == 5  # data, sft, label_1, prm_1, search_1
    assert "round_1]" not in printed
    manifest = json.loads((folder / "ppo" / "manifest.json").read_text())
    sources = {name: row["source"] for name, row in manifest["inputs"].items()}
    assert sources["problems"] == "../export_1/problems_by_solve_rate.jsonl"
    assert sources["trajectories_0"] == "../search_1"
    assert all(row["imitation_loss"] > 0 for row in metrics_of(folder / "ppo"))
    results = json.loads((folder / "results.json").read_text())
    [learner] = results["learners"]
    search = json.loads((folder / "search_1" / "manifest.json").read_text())
    searched = search["usage"]["ledger"][0]["generated_tokens"]
    own = sum(row["tokens"] for row in metrics_of(folder / "ppo"))
    assert (learner["name"], learner["sampled_tokens"]) == ("ppo", searched + own)
    assert searched > 0 and [row["policy"] for row in results["training_curve"]] == ["sft", "ppo"]
    assert [len(run["cycles"]) for run in results["ppo"]] == [2]


def test_two_processes_take_the_steps_of_one(
    smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    """With one step a cycle, all rollouts are in it, whoever made them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for launch in ("cpu", "cpu_ddp"):
        more = ("--cycles", "3", "--epochs", "1", "--minibatches", "1")
        words = words_of(smoke_run, tmp_path / launch, *more, "--imitation_coefficient", "0")
        command = checkout.stage("train_ppo.py", "ppo.yaml", *words, accelerate=launch)
        checkout.run(command, OMP_NUM_THREADS="1")
        found[launch] = metrics_of(tmp_path / launch)
    for one, two in zip(found["cpu"], found["cpu_ddp"], strict=True):
        assert one["tokens"] == two["tokens"] and one["correct"] == two["correct"]
        for name in ("reward", "score", "kl", "policy_loss", "value_loss", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), name


def test_a_killed_run_ends_as_if_it_had_not_been(
    smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    def command(folder: Path) -> list[str]:
        words = words_of(smoke_run, folder, "--cycles", "6")
        return checkout.stage("train_ppo.py", "ppo.yaml", *words, accelerate="cpu_ddp")

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    checkout.run(command(whole), OMP_NUM_THREADS="1")
    child = subprocess.Popen(
        command(cut), cwd=checkout.root, env=checkout.environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (cut / "checkpoint-2" / "checkpoint_manifest.json").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=20)
    child.wait()
    assert not (cut / "manifest.json").exists()
    printed = checkout.run(command(cut), OMP_NUM_THREADS="1")
    assert "resumed before cycle" in printed
    assert metrics_of(cut) == metrics_of(whole)
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    metrics = [json.loads((f / "manifest.json").read_text())["metrics"] for f in (whole, cut)]
    assert metrics[0]["held_out_last"] == metrics[1]["held_out_last"]
    assert not [*cut.glob("checkpoint-*"), *cut.glob("best")]
