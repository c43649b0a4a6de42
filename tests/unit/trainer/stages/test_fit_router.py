"""From two comparisons to a router: what the stage reports is what a routed search does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import Outcome, Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from search.settings import SearchSettings
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.stages.compare import CompareConfig, run_compare
from trainer.stages.fit_router import FitRouterConfig, run_fit_router

STRATEGIES = {
    "look": {"strategy": "look", "budgets": [2]},
    "rounds": {"strategy": "solutions", "budgets": [4, 6], "round_size": 2, "stop_score": 0.5},
    "tree": {"strategy": "mcts", "budgets": [4], "expand_by_rollouts": True},
    "oracle": {"strategy": "solutions", "budgets": [4], "answer": "oracle"},
}


class HasEvenLength:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        right = len(solution) % 2 == 0
        return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


def compare(folder: Path, name: str, split: str, strategies: dict[str, Any]) -> dict[str, Any]:
    runtime = RuntimeConfig(output_dir=str(folder / name), wandb=False, seed=3)
    config = CompareConfig(
        policy=str(folder / "policy"), reward_model=str(folder / "prm"), data=str(folder / "data"),
        verifier="even", split=split, num_problems=8, strategies=strategies,
        reference_budgets=(2, 4), target_best_of_n=4,
    )  # fmt: skip
    run_compare(runtime, config, SearchSettings(max_step_tokens=6, max_new_tokens=9, max_depth=3))
    return json.loads((folder / name / "comparison.json").read_text())


def fit(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    runtime = RuntimeConfig(output_dir=str(folder / name), wandb=False)
    values: dict[str, Any] = {
        "comparison": str(folder / "fitting"), "test_comparison": str(folder / "testing"),
        "budgets": (100, 300),
    }  # fmt: skip
    run_fit_router(runtime, FitRouterConfig(**(values | options)))
    return json.loads((folder / name / "routing.json").read_text())


@pytest.mark.slow
def test_a_routed_search_does_what_the_stage_reports(
    tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERIFIERS, "even", HasEvenLength)
    save_model(*tiny_policy, tmp_path / "policy")
    torch.manual_seed(0)
    prm = reward_model_from_policy(str(tmp_path / "policy"))
    save_model(prm, tiny_policy[1], tmp_path / "prm")
    (tmp_path / "data").mkdir()
    for split, first in (("validation", 1), ("test", 2)):
        problems = [make_problem((first, 2, 3 + i), 6 + i) for i in range(8)]
        write_problems(tmp_path / "data" / f"{split}.jsonl", problems)
    compare(tmp_path, "fitting", "validation", STRATEGIES)
    compare(tmp_path, "testing", "test", STRATEGIES)
    outcomes = json.loads((tmp_path / "testing" / "outcomes.json").read_text())
    arms = [(arm["name"], arm["budget"], arm["continues_look"]) for arm in outcomes["arms"]]
    assert arms == [
        ("look", 2, False), *(("best_of_n", n, False) for n in (1, 2, 3, 4)),
        ("rounds", 4, True), ("rounds", 6, True), ("tree", 4, False),
    ]  # fmt: skip
    assert [arm["choosable"] for arm in outcomes["arms"]] == [
        True, False, True, False, True, True, True, True,
    ]  # fmt: skip
    results = fit(tmp_path, "router")
    strategy = {
        "strategy": "routed", "router": str(tmp_path / "router" / "router.json"),
        "budgets": [100, 300], "rerun": True,
    }  # fmt: skip
    comparison = compare(tmp_path, "routed", "test", {"routed": strategy})
    assert not (tmp_path / "routed" / "outcomes.json").exists()
    found = {row["budget"]: row for row in comparison["accuracy"] if row["strategy"] == "routed"}
    for row in results["rows"]:
        assert found[row["budget"]]["flops"] == pytest.approx(row["flops"], rel=1e-12)
        assert found[row["budget"]]["value"] == row["accuracy"]["value"]
    assert results["rows"][0]["flops"] < results["rows"][1]["flops"]
    assert "| 300 |" in (tmp_path / "router" / "routing.md").read_text()
    with pytest.raises(ValueError, match=r"has no outcomes\.json: compare strategies with a look"):
        fit(tmp_path, "other", comparison=str(tmp_path / "routed"))
    with pytest.raises(ValueError, match="comparison is of test problems"):
        fit(tmp_path, "third", comparison=str(tmp_path / "testing"))


def test_two_looks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERIFIERS, "even", HasEvenLength)
    two = {**STRATEGIES, "other_look": {"strategy": "look", "budgets": [3]}}
    with pytest.raises(ValueError, match="more than one look"):
        compare(tmp_path, "out", "test", two)
    with pytest.raises(ValueError, match="regularization is 0"):
        FitRouterConfig(comparison="c", regularization=0)
