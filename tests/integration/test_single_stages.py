"""Stages started alone on the folders of a run, in one process and in two; plans; mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow
LAUNCHES = ("cpu", "cpu_ddp")
RECIPES = Path(__file__).resolve().parents[2] / "recipes/countdown"


@pytest.mark.parametrize("stage", ["search_1", "label_1"])
def test_two_processes_find_what_one_finds(
    smoke_run: Path, checkout: Any, tmp_path: Path, stage: str
) -> None:
    data, sft, prm = (str(smoke_run / name) for name in ("data", "sft", "prm_1"))
    script, config, output, *words = {
        "search_1": ["run_search.py", "search.yaml", "trees.jsonl", "--reward_model", prm],
        "label_1": ["label_steps.py", "label.yaml", "labels.jsonl"],
    }[stage]
    words += ["--policy", sft, "--data", data, "--num_problems", "20", "--seed", "5"]
    found: dict[str, bytes] = {}
    usage: dict[str, Any] = {}
    for launch in LAUNCHES:
        folder = tmp_path / launch
        command = checkout.launched(script, config, launch, *words, "--output_dir", str(folder))
        checkout.run(command, OMP_NUM_THREADS="1")
        found[launch] = (folder / output).read_bytes()
        usage[launch] = json.loads((folder / "manifest.json").read_text())["usage"]
        assert not [*folder.glob("*.rank*"), *folder.glob("*journal*")]
    assert found["cpu"] == found["cpu_ddp"]
    assert usage["cpu"] == usage["cpu_ddp"]


def test_two_processes_measure_what_one_measures(
    smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    at = {name: str(smoke_run / name) for name in ("sft", "round_2", "prm_2", "data")}
    words = ["--policies", at["sft"], at["round_2"], "--reward_model", at["prm_2"]]
    words += ["--data", at["data"], "--greedy_problems", "9", "--search_problems", "5"]
    words += ["--prm_problems", "5", "--prm_rollouts", "4", "--data_making_problems", "5"]
    words += ["--best_of_n", "2", "8", "--budgets", "1", "4", "--seed", "5"]
    found: list[dict[str, bytes]] = []
    for launch in LAUNCHES:
        folder = tmp_path / launch
        out = ("--output_dir", str(folder))
        command = checkout.launched("evaluate_run.py", "evaluate_demo.yaml", launch, *words, *out)
        checkout.run(command, OMP_NUM_THREADS="1")
        found.append({path.name: path.read_bytes() for path in sorted(folder.glob("*.json*"))})
        found[-1].pop("manifest.json")
    assert len(found[0]) > 5 and "evaluation.json" in found[0]
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_the_larger_evaluation_runs_alone_on_earlier_folders(
    smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    at = {name: str(smoke_run / name) for name in ("sft", "round_2", "prm_2", "data")}
    words = ["--policies", at["sft"], at["round_2"], "--reward_model", at["prm_2"]]
    words += ["--data", at["data"], "--output_dir", str(tmp_path / "larger")]
    words += ["--greedy_problems", "8", "--search_problems", "4", "--prm_problems", "4"]
    words += ["--prm_rollouts", "8", "--data_making_problems", "4"]
    checkout.run(checkout.stage("evaluate_run.py", "evaluate.yaml", *words))
    content = json.loads((tmp_path / "larger" / "evaluation.json").read_text())
    budgets = {r["budget"] for r in content["accuracy"] if r["strategy"] == "mcts"}
    assert budgets == {2, 8, 32}


def test_strategies_are_compared_and_trees_exported(
    smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    at = {name: str(smoke_run / name) for name in ("round_2", "prm_2", "data", "search_2")}
    words = ["--policy", at["round_2"], "--reward_model", at["prm_2"], "--data", at["data"]]
    words += ["--output_dir", str(tmp_path / "compare"), "--num_problems", "4"]
    recipe = yaml.safe_load((RECIPES / "stages/compare.yaml").read_text())
    recipe |= {"reference_budgets": [4, 16], "target_best_of_n": 16}
    for arm in recipe["strategies"].values():
        arm["budgets"] = sorted({min(budget, 16) for budget in arm["budgets"]})
    small = tmp_path / "compare.yaml"
    small.write_text(yaml.safe_dump(recipe))
    printed = checkout.run(checkout.forked_stage("compare_searches.py", str(small), *words))
    content = json.loads((tmp_path / "compare" / "comparison.json").read_text())
    measured = {(row["strategy"], row["budget"]) for row in content["accuracy"]}
    for name, arm in recipe["strategies"].items():
        assert {(name, budget) for budget in arm["budgets"]} <= measured
    assert all(row["flops"] > 0 for row in content["accuracy"])
    assert "| gumbel | 8 |" in printed and "| unguided | 16 |" in printed
    words = ["--trees", at["search_2"], "--policy", at["round_2"]]
    words += ["--output_dir", str(tmp_path / "export")]
    checkout.run(checkout.forked_stage("export_trees.py", "export.yaml", *words))
    metrics = json.loads((tmp_path / "export" / "manifest.json").read_text())["metrics"]
    assert metrics["nodes"] > 100 and metrics["step_labels"] > 0


def test_the_demo_is_planned_without_running(checkout: Any, tmp_path: Path) -> None:
    words = checkout.forked_recipe(tmp_path / "demo", "recipes/countdown/demo.yaml")
    printed = checkout.run([*words, "--dry-run"])
    lines = [printed.count(f"launch --config_file recipes/accelerate/{c}.yaml") for c in LAUNCHES]
    assert lines == [8, 5]  # what samples runs in two processes
    assert "memory" in printed and "tokens" in printed
    assert not (tmp_path / "demo").exists()


def test_a_bad_row_of_ones_own_problems_stops_the_stage(
    smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.jsonl"
    shutil.copyfile(smoke_run / "data" / "test.jsonl", mine)
    with mine.open("a", encoding="utf-8") as file:
        file.write('{"prompt": "1 2 3 4 -> 24\\n"}\n')
    words = ["--output_dir", str(tmp_path / "data"), "--test_file", str(mine)]
    printed = checkout.run(checkout.forked_stage("make_data.py", "data.yaml", *words), fails=True)
    assert "line 41: answer is absent; it is required" in printed
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_a_typo_on_the_command_line_is_answered(checkout: Any, tmp_path: Path) -> None:
    words = ["--output_dir", str(tmp_path / "data"), "--min_nubmer", "3"]
    printed = checkout.run(checkout.stage("make_data.py", "data.yaml", *words), fails=True)
    assert "min_nubmer" in printed and "min_number" in printed
