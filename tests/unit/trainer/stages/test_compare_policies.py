"""Strategies of the comparison that have a policy of their own."""

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
from trainer.models.loading import load_policy, reward_model_from_policy, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.stages.compare import CompareConfig, run_compare

GREEDY = {
    "strategy": "solutions", "budgets": [1], "temperature": 0.0, "answer": "first",
}  # fmt: skip


class EndsAtOnce:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.WRONG if solution else Outcome.CORRECT)


@pytest.fixture
def folder(tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`policy` never ends at once, and `other` always does."""
    monkeypatch.setitem(VERIFIERS, "ends", EndsAtOnce)
    problem = make_problem((1, 2, 3), 6)
    (tmp_path / "data").mkdir()
    write_problems(tmp_path / "data" / "test.jsonl", [problem])
    for name in ("policy", "other"):
        save_model(*tiny_policy, tmp_path / name)
    torch.manual_seed(0)
    prm = reward_model_from_policy(str(tmp_path / "policy"))
    save_model(prm, tiny_policy[1], tmp_path / "prm")
    model, tokenizer = load_policy(str(tmp_path / "other"))
    with torch.no_grad():  # what it thinks after the prompt becomes what means the end
        ids = torch.tensor([tokenizer.encode(problem.prompt)])
        thought = model.base_model(input_ids=ids).last_hidden_state[0, -1]
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 100 * thought
    save_model(model, tokenizer, tmp_path / "other")
    return tmp_path


def compare(
    folder: Path,
    strategies: dict[str, Any],
    policies: dict[str, str],
    reward_model: str | None = "prm",
    guidance: str = "prm",
) -> Any:
    runtime = RuntimeConfig(output_dir=str(folder / "out"), wandb=False, seed=3)
    config = CompareConfig(
        policy=str(folder / "policy"), data=str(folder / "data"),
        reward_model=reward_model and str(folder / reward_model),
        verifier="ends", split="test", num_problems=1, strategies=strategies, policies=policies,
        reference_budgets=(2, 4), target_best_of_n=4,
    )  # fmt: skip
    run_compare(runtime, config, SearchSettings(max_new_tokens=6, guidance=guidance))


def test_another_policy_is_compared_at_equal_flops(folder: Path) -> None:
    strategies = {"own": GREEDY, "others": GREEDY}
    compare(folder, strategies, {"others": str(folder / "other")})
    found = json.loads((folder / "out" / "comparison.json").read_text())
    rows = {row["strategy"]: row for row in found["accuracy"]}
    assert (rows["own"]["policy"], rows["own"]["value"]) == ("policy", 0.0)
    assert (rows["others"]["policy"], rows["others"]["value"]) == ("other", 1.0)
    assert rows["others"]["reward_flops"] == 0 < rows["best_of_n"]["reward_flops"]
    equal = {row["strategy"]: row["difference"] for row in found["equal_flops"]}
    assert equal["others"] == 1.0
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["inputs"]["policy_others"]["source"].endswith("other")
    spent = sum(row["generated_tokens"] for row in manifest["usage"]["ledger"])
    trees = [json.loads(path.read_text()) for path in (folder / "out").glob("*.jsonl")]
    searched = [tree["usage"]["policy"]["generated_tokens"] for tree in trees if "usage" in tree]
    assert spent == sum(searched) and len(searched) == 3


@pytest.mark.parametrize(
    ("strategy", "policies", "said"),
    [
        (GREEDY, {"theirs": "x"}, "policies names 'theirs'"),
        ({"strategy": "look", "budgets": [2]}, {"others": "x"}, "a look and a router"),
        ({"strategy": "mcts", "budgets": [2]}, {"others": "x"}, "set its guidance to likelihood"),
        ({"strategy": "solutions", "budgets": [2]}, {"others": "x"}, "no reward model scores"),
    ],
)
def test_what_another_policy_cannot_do_is_said(
    folder: Path, strategy: dict[str, Any], policies: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        compare(folder, {"others": strategy}, policies)


def test_a_policy_alone_is_compared(folder: Path) -> None:
    compare(folder, {"own": GREEDY}, {}, reward_model=None, guidance="likelihood")
    found = json.loads((folder / "out" / "comparison.json").read_text())
    rows = {(row["strategy"], row["budget"]): row for row in found["accuracy"]}
    assert ("own", 1) in rows and ("best_of_n", 4) in rows
    assert {row["reward_flops"] for row in rows.values()} == {0}


@pytest.mark.parametrize(
    ("strategy", "guidance", "named"),
    [
        (GREEDY, "prm", "best_of_n"),
        ({"strategy": "mcts", "budgets": [2], "guidance": "prm"}, "likelihood", "own"),
    ],
)
def test_without_a_reward_model_none_may_guide(
    folder: Path, strategy: dict[str, Any], guidance: str, named: str
) -> None:
    with pytest.raises(ValueError, match=f"'{named}' is guided by the reward model, and reward_"):
        compare(folder, {"own": strategy}, {}, reward_model=None, guidance=guidance)
