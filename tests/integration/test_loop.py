"""The whole loop as a user runs it: every figure, skipping, kills in every kind of stage."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.processes import kill_family

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).resolve().parents[2] / "recipes/countdown"
DEMO = yaml.safe_load((RECIPES / "demo.yaml").read_text())  # whose stages the smoke run has
STAGES: list[str] = [
    row["name"] for row in DEMO["stages"] if row.get("when", {}).get("learner") != "ppo"
]
AFTER_ROUND_1 = STAGES.index("round_1") + 1
LAST = ["evaluate", "report"]
# Stages that the smoke run made, and stages that are killed. Stages of the second round are of the
# kinds of the first.
KILLS: list[tuple[list[str], list[str]]] = [
    ([], STAGES[:AFTER_ROUND_1]),
    ([name for name in STAGES if name not in LAST], LAST),
]
ALL_KILLS = bool(os.environ.get("THINKTREE_ALL_KILLS"))
if ALL_KILLS:  # and by the real launcher
    KILLS = [([], STAGES)]
TIMES = ("seconds", "training_seconds")


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in (*TIMES, "stages")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def model_files(folder: Path, stages: list[str]) -> dict[str, bytes]:
    """Everything that one stage hands to the next: weights, trees, labels, problems."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for stage in stages
        for pattern in ("model.safetensors", "*.jsonl")
        for path in sorted((folder / stage).glob(pattern))
    }


def test_results_hold_every_figure(smoke_run: Path) -> None:
    results = results_of(smoke_run)
    assert set(results["stages"]) == set(STAGES) - {"report"}
    assert all(seconds > 0 for seconds in results["stages"].values())
    for name in (
        "final_vs_sft_greedy",
        "mcts_vs_greedy",
        "mcts_vs_best_of_n",
        "mcts_vs_uniform_control",
    ):
        row = results["comparisons"][name]
        assert -1 <= row["low"] <= row["difference"] <= row["high"] <= 1
        assert row["n"] == (40 if name == "final_vs_sft_greedy" else 12)
        assert row["metric"]
    rows = {(r["policy"], r["strategy"], r["budget"]): r for r in results["accuracy"]}
    for policy in ("sft", "round_2"):
        wanted = [("greedy", 1), ("sample", 1)]
        chosen = ("best_of_n_weighted", "best_of_n", "majority", "pass_at_n")
        wanted += [(strategy, n) for strategy in chosen for n in (4, 16, 64)]
        wanted += [("mcts", n) for n in (1, 4, 16)]
        for strategy, budget in wanted:
            row = rows[policy, strategy, budget]
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
            assert row["flops"] == pytest.approx(row["policy_flops"] + row["reward_flops"])
            assert row["flops"] > 0
        assert rows[policy, "mcts", 16]["reward_flops"] > 0
        assert rows[policy, "pass_at_n", 64]["value"] >= rows[policy, "best_of_n", 64]["value"]
    assert {row["stage"] for row in results["ledger"]} == set(STAGES) - {"data", "report"}
    assert [row["policy"] for row in results["training_curve"]] == ["sft", "round_1", "round_2"]
    searches = [(fit["policy"], fit["strategy"], fit["points"]) for fit in results["scaling"]]
    assert searches == [
        (policy, strategy, points)
        for policy in ("sft", "round_2")
        # N is 3, 5 and 10 too, where the table has majority votes
        for strategy, points in (("best_of_n_weighted", 6), ("mcts", 3))
    ]
    fit = results["training_fit"]
    assert fit["policies"][0] == "sft" and fit["slope"]["n"] == 40
    assert [gate["round"] for gate in results["gates"]] == ["round_1", "round_2"]
    assert results["prm"]["rollouts_per_prefix"] == 16
    assert [row["method"] for row in results["data_making"]] == [
        "mcts", "sample", "sample_equal_flops",
    ]  # fmt: skip


def test_the_ledger_counts_every_search_on_disk(smoke_run: Path) -> None:
    generated = scored = 0
    for path in (smoke_run / "evaluate").glob("*.jsonl"):
        for row in map(json.loads, path.open(encoding="utf-8")):
            usage = row["usage"]
            generated += usage["policy"]["generated_tokens"]
            scored += usage["reward"]["positions"]
            if row["strategy"] == "solutions":
                tokens = sum(len(node["token_ids"]) for node in row["nodes"])
                assert usage["policy"]["generated_tokens"] == tokens
    ledger = [r for r in results_of(smoke_run)["ledger"] if r["stage"] == "evaluate"]
    assert sum(r["generated_tokens"] for r in ledger if r["model"] == "policy") == generated > 0
    assert sum(r["positions"] for r in ledger if r["model"] == "reward") == scored > 0


def test_a_second_call_does_nothing(smoke_run: Path, checkout: Any) -> None:
    before = {p: p.stat().st_mtime_ns for s in STAGES for p in (smoke_run / s).rglob("*")}
    printed = checkout.run(checkout.forked_recipe(smoke_run))
    assert printed.count("unchanged, skipped") == len(STAGES)
    assert "final_vs_sft_greedy" in printed and printed.splitlines()[-1].startswith("report: ")
    after = {p: p.stat().st_mtime_ns for s in STAGES for p in (smoke_run / s).rglob("*")}
    assert after == before


def test_the_real_launcher_makes_the_same(smoke_run: Path, checkout: Any, tmp_path: Path) -> None:
    """The other runs here fork their stages; this one starts `accelerate launch` per stage."""
    folder = tmp_path / "run"
    keep_stage(smoke_run, folder, "data")
    assert "done in" in checkout.run([*checkout.recipe(folder), "--only", "sft"])
    ours, theirs = (model_files(run, ["sft"]) for run in (folder, smoke_run))
    assert len(ours) > 1 and ours == theirs


def keep_stage(run: Path, folder: Path, stage: str) -> None:
    """Put a stage of another run, and its record, into the folder of a run."""
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    shutil.copytree(run / stage, folder / stage)
    shutil.copy(run / "stages" / f"{stage}.json", folder / "stages")


def in_the_middle(folder: Path) -> bool:
    """Whether a stage has work on disk that a resumed run must continue from."""
    if any(folder.glob("checkpoint-*/checkpoint_manifest.json")):
        return True
    if any(path.stat().st_size for path in folder.rglob("*.journal*.jsonl")):
        return True
    return folder.name in ("data", "label_1", "label_2", "report") and folder.exists()


def words_of(checkout: Any, folder: Path) -> list[str]:
    return checkout.recipe(folder) if ALL_KILLS else checkout.forked_recipe(folder)


def kill_in(checkout: Any, stage: str, folder: Path) -> bool:
    """Start the recipe and kill all its processes in the middle of `stage`. False if the stage
    was over before that."""
    child = checkout.start(words_of(checkout, folder), WANDB_MODE="offline")
    deadline = time.monotonic() + 120
    while not in_the_middle(folder / stage):
        assert child.poll() is None, f"the recipe ended before {stage} was killed"
        assert time.monotonic() < deadline, f"{stage} never came to its middle"
        time.sleep(0.005)
    kill_family(child)
    return not (folder / stage / "manifest.json").exists()


@pytest.mark.parametrize(("kept", "killed"), KILLS)
def test_kills_in_every_kind_of_stage_change_nothing(
    smoke_run: Path, checkout: Any, tmp_path: Path, kept: list[str], killed: list[str]
) -> None:
    folder = tmp_path / "run"
    for stage in kept:
        keep_stage(smoke_run, folder, stage)
    early = {stage: kill_in(checkout, stage, folder) for stage in killed}
    words = [*words_of(checkout, folder), "--only", killed[-1]]
    checkout.run(words, WANDB_MODE="offline")
    assert not (folder / "replaced").exists()  # nothing that was kept or begun
    late = [stage for stage in killed if not early[stage]]
    assert len(late) <= min(2, len(killed) // 2), f"these stages were over before the kill: {late}"
    if "report" in killed:
        assert without_times(results_of(folder)) == without_times(results_of(smoke_run))
    ours, theirs = (model_files(at, [*kept, *killed]) for at in (folder, smoke_run))
    assert ours.keys() == theirs.keys() and len(ours) >= len(killed)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    attempts = {
        stage: json.loads((folder / "stages" / f"{stage}.json").read_text())["attempts"]
        for stage in killed
    }
    assert all(attempts[stage] == 2 for stage in killed if stage not in late), attempts
