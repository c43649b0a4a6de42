"""A measured run as the evaluate stage leaves it, with tiny real models, and its bundle."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from trainer.measures.results import AccuracyRow, EvaluationResults
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import write_manifest
from trainer.stages.bundle import BundleConfig, run_bundle

SETTINGS = SearchSettings(max_step_tokens=8, max_new_tokens=20, max_depth=3, likelihood_weight=0.5)
MCTS = MCTSConfig(budgets=(1, 4), expand_by_rollouts=True, proposals=2)
# strategy, budget, accuracy, FLOPs per problem
CURVE = (
    ("greedy", 1, 0.2, 1e6),
    ("best_of_n_weighted", 2, 0.3, 4e6),
    ("majority", 2, 0.25, 2e6),
    ("pass_at_n", 2, 0.9, 2e6),
    ("mcts", 1, 0.35, 5e6),
    ("mcts", 4, 0.5, 4e7),
    ("best_of_n_weighted", 4, 0.45, 6e7),
    ("mcts_uniform_control", 4, 0.8, 1e6),
)


def accuracy_row(strategy: str, budget: int, value: float, flops: float) -> AccuracyRow:
    return AccuracyRow(
        policy="policy", strategy=strategy, budget=budget, n=100, value=value, low=value - 0.1,
        high=value + 0.1, format_rate=1.0, truncation_rate=0.0, generated_tokens=10.0 * budget,
        policy_flops=flops, reward_flops=0.0, flops=flops,
    )  # fmt: skip


def write_measured_run(folder: Path, tiny_policy: Any, *, judged: bool = False) -> Path:
    """The folder of a finished evaluate stage, beside its data, policy, control and reward model.
    The evaluation names them as they were seen from another directory. `judged`: with a judge,
    which chose the answers."""
    save_model(*tiny_policy, folder / "policy")
    save_model(*tiny_policy, folder / "control")
    more = {"updates_like": ["run/policy"]}
    write_manifest(folder / "control", stage="sft", recipe=more, seed=7)
    (folder / "policy" / "metrics.jsonl").write_text("{}\n")
    torch.manual_seed(0)
    prm = reward_model_from_policy(str(folder / "policy"))
    save_model(prm, tiny_policy[1], folder / "prm")
    (folder / "data").mkdir()
    recipe = {"task": "countdown"}
    write_manifest(folder / "data", stage="data", recipe=recipe, seed=7)
    rows = tuple(accuracy_row(*measured) for measured in CURVE)
    control = replace(rows[0], policy="control")
    results = EvaluationResults(accuracy=(*rows, control), comparisons={}, prm=None, data_making=())
    stage = folder / "evaluate"
    stage.mkdir()
    (stage / "evaluation.json").write_text(json.dumps(asdict(results)))
    models = {"policies": ["run/policy", "run/control"], "reward_model": "run/prm"}
    inputs = {
        "policy": folder / "policy", "control": folder / "control",
        "data": folder / "data", "reward_model": folder / "prm",
    }  # fmt: skip
    settings = SETTINGS
    if judged:
        torch.manual_seed(1)
        judge = reward_model_from_policy(str(folder / "policy"))
        save_model(judge, tiny_policy[1], folder / "final")
        models["judge"], inputs["judge"] = "run/final", folder / "final"
        settings = replace(SETTINGS, answer_guidance="judge")
    write_manifest(
        stage,
        stage="evaluate",
        recipe=asdict(settings) | asdict(MCTS) | models
        | {"verifier": "countdown", "split": "test", "run_group": "tiny-run"},
        seed=7,
        inputs=inputs,
        extra={"inputs": {}},
    )  # fmt: skip
    return stage


def export_bundle(folder: Path, tiny_policy: Any, *, judged: bool = False, **config: Any) -> Path:
    """The bundle of a measured run that is written into `folder`."""
    stage = write_measured_run(folder, tiny_policy, judged=judged)
    runtime = RuntimeConfig(output_dir=str(folder / "bundle"), wandb=False)
    run_bundle(runtime, BundleConfig(evaluation=str(stage), **config))
    return folder / "bundle"
