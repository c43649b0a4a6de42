"""Every pipeline recipe from end to end with tiny random models, without a download."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.pipeline.recipe import load_pipeline

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# Run by the other tests here, each as a larger smoke run of its own.
RUN_ELSEWHERE = ("countdown/demo", "countdown/smoke", "gsm8k/full", "gsm8k/smoke")
NOT_RUN = ["countdown/label_kinds"]  # it begins with the folders of another run
# One round by PPO, which the demo's rounds do not have.
SETTINGS = {"recipes/countdown/rounds.yaml": ("rounds=1", "learner=ppo")}
# The stages of these are those of qwen2.5-1.5b-math, countdown/learners, countdown/thinking,
# countdown/shared_trunk and smollm2-135m/gsm8k.
if not os.environ.get("THINKTREE_ALL_PIPELINES"):
    NOT_RUN += ["qwen2.5-7b-math/full", "countdown/ablation", "countdown/thinking_smoke"]
    NOT_RUN += ["countdown/reach", "smollm2-135m/full"]
PIPELINES = [
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "recipes").glob("*/*.yaml"))
    if {"stages", "extends"} & yaml.safe_load(path.read_text()).keys()
    and f"{path.parent.name}/{path.stem}" not in (*RUN_ELSEWHERE, *NOT_RUN)
]


def published_rows(recipe: str) -> list[str]:
    """Real rows for one of the recipes, where they are there; the others take ours."""
    shared = ROOT.parent / "shared" / "data"
    if not (shared.is_dir() and recipe == "recipes/qwen2.5-1.5b-math/full.yaml"):
        return []
    files = {
        "data.train_rows": "gsm8k_train.jsonl",
        "data.test_rows": "gsm8k_test.jsonl",
        "math500.test_rows": "math500_test.jsonl",
    }
    return [word for key, name in files.items() for word in ("--set", f"{key}={shared / name}")]


@pytest.mark.parametrize("recipe", PIPELINES)
def test_a_pipeline_runs_tiny(checkout: Any, tmp_path: Path, recipe: str) -> None:
    folder = tmp_path / "run"
    settings = SETTINGS.get(recipe, ())
    words = [*checkout.forked_recipe(folder, recipe), "--smoke", *published_rows(recipe)]
    words += [word for setting in settings for word in ("--set", setting)]
    printed = checkout.run(words, OMP_NUM_THREADS="1")
    names = [stage.name for stage in load_pipeline(ROOT / recipe, settings).stages]
    assert printed.count("done in") == len(names)
    for name in names:
        manifest = json.loads((folder / name / "manifest.json").read_text())
        assert manifest["extra"]["resources"]["peak_resident_bytes"] > 0
        asks_models = name != "label_solutions"  # it reads the verdicts of trees
        kinds = ("sft", "prm", "label", "search", "evaluate", "ppo")
        if asks_models and manifest["stage"] in kinds:
            assert manifest["extra"]["resources"]["flops_utilisation"] > 0, name
    if recipe.endswith("judge.yaml"):
        compared = folder / "compare"
        assert "judge" in json.loads((compared / "manifest.json").read_text())["inputs"]
        rows, judged = (
            [json.loads(line) for line in (compared / f"{name}_16.jsonl").open()]
            for name in ("mcts", "mcts_judge")
        )
        assert [[n["text"] for n in row["nodes"]] for row in rows] == [
            [n["text"] for n in row["nodes"]] for row in judged
        ]
        assert any("answer_score" in node for row in judged for node in row["nodes"])
        assert not any("answer_score" in node for row in rows for node in row["nodes"])
    if "qwen" in recipe:
        config = json.loads((folder / "ppo/config.json").read_text())
        assert (config["model_type"], config["hidden_size"]) == ("qwen2", 64)
        row = json.loads((folder / "data/test.jsonl").read_text().split("\n")[0])
        assert row["prompt"].startswith("<|im_start|>system\n")
        assert row["prompt"].endswith("<|im_start|>assistant\n")
        assert (folder / "report.html").stat().st_size > 10_000
