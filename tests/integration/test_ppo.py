"""PPO as a user launches it: one process or two, killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from tests.integration.processes import kill_family

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
    """What comes before the learner is kept; PPO learns from the search's solutions, and the report
    shows it."""
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder)
    small = ["best_of_n=[2]", "budgets=[1]", "greedy_problems=10", "search_problems=2"]
    small += ["prm_problems=2", "data_making_problems=2"]
    words = [word for key in small for word in ("--set", f"evaluate.{key}")]
    printed = checkout.run([*checkout.forked_recipe(folder), "--set", "learner=ppo", *words])
    assert printed.count("unchanged, skipped") == 5  # data, sft, label_1, prm_1, search_1
    assert "round_1]" not in printed
    manifest = json.loads((folder / "ppo" / "manifest.json").read_text())
    sources = {name: row["source"] for name, row in manifest["inputs"].items()}
    assert sources["trajectories_0"] == "../search_1"
    found = bool((folder / "search_1" / "trajectories.jsonl").read_text())
    assert all((row["imitation_loss"] > 0) == found for row in metrics_of(folder / "ppo"))
    results = json.loads((folder / "results.json").read_text())
    [learner] = results["learners"]
    search = json.loads((folder / "search_1" / "manifest.json").read_text())
    searched = search["usage"]["ledger"][0]["generated_tokens"]
    own = sum(row["tokens"] for row in metrics_of(folder / "ppo"))
    assert (learner["name"], learner["sampled_tokens"]) == ("ppo", searched + own)
    assert searched > 0 and [row["policy"] for row in results["training_curve"]] == ["sft", "ppo"]
    assert [len(run["cycles"]) for run in results["ppo"]] == [2]


LAUNCHES = ("cpu", "cpu_ddp", "cpu_zero3")
# Of two optimizer steps a cycle; one process accumulates what two share.
STEPS = ("--cycles", "3", "--epochs", "1", "--minibatches", "2", "--micro_batch_size", "8")


def command(checkout: Any, smoke_run: Path, folder: Path, launch: str) -> list[str]:
    words = words_of(smoke_run, folder, *STEPS, "--save_every", "1", "--kl_coefficient", "0.05")
    return checkout.launched("train_ppo.py", "ppo.yaml", launch, *words)


@pytest.fixture(scope="module")
def steps(
    smoke_run: Path, checkout: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same run by every launcher config."""
    folder = tmp_path_factory.mktemp("steps")
    for launch in LAUNCHES:
        words = command(checkout, smoke_run, folder / launch, launch)
        checkout.run(words, OMP_NUM_THREADS="1")
    return {launch: folder / launch for launch in LAUNCHES}


@pytest.mark.parametrize("launch", LAUNCHES[1:])
def test_two_processes_take_the_steps_of_one(steps: dict[str, Path], launch: str) -> None:
    """Sampling, evaluation, imitation, learning and saving, each process its share of the problems
    and under ZeRO-3 its share of the weights."""
    one, two = steps["cpu"], steps[launch]
    for a, b in zip(metrics_of(one), metrics_of(two), strict=True):
        assert a["tokens"] == b["tokens"] and a["correct"] == b["correct"]
        for name in ("reward", "score", "kl", "policy_loss", "value_loss", "imitation_loss",
                     "grad_norm"):  # fmt: skip
            assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-4), name
    before, after = ((folder / "evaluations.jsonl").read_text() for folder in (one, two))
    rows = [[json.loads(line) for line in text.splitlines()] for text in (before, after)]
    for a, b in zip(*rows, strict=True):
        assert a["accuracy"] == b["accuracy"] and b["proxy"] == pytest.approx(a["proxy"], abs=1e-4)
    for part in (".", "critic"):
        first, second = (load_file(folder / part / "model.safetensors") for folder in (one, two))
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.allclose(value, second[name], rtol=0, atol=1e-4), (part, name)
    AutoModelForCausalLM.from_pretrained(two)
    AutoModelForTokenClassification.from_pretrained(two / "critic")


LORA = ("--lora_rank", "4")
KILLS: list[tuple[str, str, tuple[str, ...]]] = [("cpu_zero3", "one", ()), ("cpu_ddp", "all", ())]
if os.environ.get("THINKTREE_ALL_KILLS"):
    KILLS += [
        *(("cpu_zero3", "saving", ()), ("cpu_zero3", "one", LORA), ("cpu_zero3", "saving", LORA)),
        ("cpu_zero3", "all", LORA),
        *(("cpu_ddp", "one", ()), ("cpu_ddp", "all", LORA), ("cpu_ddp", "saving", ())),
    ]


@pytest.mark.parametrize(("launch", "killed", "more"), KILLS)
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(
    launch: str,
    killed: str,
    more: tuple[str, ...],
    steps: dict[str, Path],
    smoke_run: Path,
    checkout: Any,
    tmp_path: Path,
) -> None:
    """One process, all of them, or all while they write the second checkpoint; of a run of all
    parameters or of adapters. THINKTREE_ALL_KILLS=1 adds what is left out for its time."""
    cut, whole = tmp_path / "cut", steps[launch]
    words = [*command(checkout, smoke_run, cut, launch), *more]
    if more:
        whole = tmp_path / "whole"
        uncut = [*command(checkout, smoke_run, whole, launch), *more]
        checkout.run(uncut, OMP_NUM_THREADS="1")
    child = checkout.start(words, OMP_NUM_THREADS="1")
    second = cut / "checkpoint-2"
    deadline = time.monotonic() + 240
    while not (
        second.is_dir() and any(second.iterdir())
        if killed == "saving"
        else is_whole(cut / "checkpoint-1")
    ):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    if killed == "one":
        family = psutil.Process(child.pid).children(recursive=True)
        next(process for process in family if process.environ().get("RANK") == "1").kill()
        # the launcher ends the other, which would wait for ever
        assert child.wait(timeout=120) != 0
    else:
        kill_family(child)
    assert not (cut / "manifest.json").exists()
    if killed == "saving":
        assert second.is_dir() and not is_whole(second)
    printed = checkout.run(words, OMP_NUM_THREADS="1")
    assert f"resumed before cycle {1 if killed == 'saving' else ''}" in printed
    assert metrics_of(cut) == metrics_of(whole)
    files = [sorted(folder.rglob("*.safetensors")) for folder in (cut, whole)]
    names = [
        [str(f.relative_to(at)) for f in own] for own, at in zip(files, (cut, whole), strict=True)
    ]
    assert names[0] == names[1] and len(names[0]) >= 2  # of actor and critic
    for first, other in zip(*files, strict=True):
        assert first.read_bytes() == other.read_bytes(), first
    metrics = [json.loads((f / "manifest.json").read_text())["metrics"] for f in (whole, cut)]
    assert metrics[0]["held_out_last"] == metrics[1]["held_out_last"]
    assert not [*cut.glob("checkpoint-*"), *cut.glob("best")]


def is_whole(checkpoint: Path) -> bool:
    return (checkpoint / "checkpoint_manifest.json").exists()
