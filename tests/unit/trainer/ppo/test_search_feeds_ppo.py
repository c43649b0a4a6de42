"""PPO on what search left on disk: the problems it chose, and solutions imitated beside."""

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
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.models.loading import load_policy, save_model
from trainer.ppo.config import PPOConfig
from trainer.rollouts.collect import RewardConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.ppo import run_ppo

PROBLEMS = [make_problem((1, 2, 3 + i), 6 + i) for i in range(6)]
SOLUTION = "1 + 2 = 3 | 3 3\n3 + 3 = 6 | 6"


class Wrong:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.WRONG)


@pytest.fixture
def folders(tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_model(*tiny_policy, tmp_path / "policy")
    for name in ("data", "export", "search"):
        (tmp_path / name).mkdir()
    for split in ("train", "validation"):
        write_problems(tmp_path / "data" / f"{split}.jsonl", PROBLEMS)
    chosen = [  # as the export stage writes them
        {"id": p.id, "prompt": p.prompt, "answer": p.answer, "solve_rate": 0.5, "solutions": 4}
        for p in PROBLEMS[2:4]
    ]
    path = tmp_path / "export" / "problems_by_solve_rate.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    row = {
        "prompt_ids": engine.encode(PROBLEMS[0].prompt),
        "completion_ids": (*engine.encode(SOLUTION), engine.end_token_id),
    }
    (tmp_path / "search" / "trajectories.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setitem(VERIFIERS, "wrong", Wrong)
    return tmp_path


def loglikelihood(folder: Path, engine: TransformersEngine) -> float:
    prompt = engine.encode(PROBLEMS[0].prompt)
    ids = torch.tensor([[*prompt, *engine.encode(SOLUTION), engine.end_token_id]])
    model, _ = load_policy(str(folder))
    with torch.no_grad():
        log = torch.log_softmax(model.eval()(input_ids=ids).logits[0, :-1], -1)
    return float(log.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :].sum())


def settings(folders: Path, **more: Any) -> PPOConfig:
    return PPOConfig(
        policy=str(folders / "policy"), data=str(folders / "data"), verifier="wrong",
        problems=str(folders / "export" / "problems_by_solve_rate.jsonl"),
        trajectories=[str(folders / "search")], problems_per_cycle=2, samples_per_problem=4,
        max_new_tokens=6, epochs=1, minibatches=1, micro_batch_size=8, learning_rate=1e-2,
        evaluation_problems=0, logged_completions=8, kl_coefficient=0.0, **{"cycles": 4, **more},
    )  # fmt: skip


def test_ppo_takes_the_searchs_problems_and_imitates_its_solutions_beside(
    folders: Path, tiny_policy: Any
) -> None:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    gained: dict[float, float] = {}
    for coefficient in (0.0, 1.0):
        out = folders / f"out_{coefficient}"
        config = settings(folders, imitation_coefficient=coefficient)
        run_ppo(RuntimeConfig(output_dir=str(out), wandb=False), config, RewardConfig())
        rows = [json.loads(line) for line in (out / "completions.jsonl").read_text().splitlines()]
        assert {row["problem"] for row in rows} == {p.id for p in PROBLEMS[2:4]}
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        # One epoch of one step: were the solution in the ratio, its tokens would be counted.
        assert all(row["ratio_mean"] == 1.0 and row["tokens"] <= 8 * 6 for row in metrics)
        gained[coefficient] = loglikelihood(out, engine) - loglikelihood(folders / "policy", engine)
        inputs = read_manifest(out)["inputs"]
        assert inputs["problems"]["source"] == "../export/problems_by_solve_rate.jsonl"
        assert inputs["trajectories_0"]["source"] == "../search"
    assert gained[1.0] > 5.0 > abs(gained[0.0])  # nats


def test_a_search_that_verified_nothing_is_said(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(name: str, coefficient: float) -> str:
        config = settings(folders, cycles=1, imitation_coefficient=coefficient)
        run_ppo(RuntimeConfig(output_dir=str(folders / name), wandb=False), config, RewardConfig())
        return capsys.readouterr().out

    assert "imitation_coefficient has no effect" not in printed("some", 0.1)
    assert read_manifest(folders / "some")["metrics"]["imitated_trajectories"] == 1
    (folders / "search" / "trajectories.jsonl").write_text("")
    assert f"no verified trajectory in {folders / 'search'}" in printed("none", 0.1)
    assert read_manifest(folders / "none")["metrics"]["imitated_trajectories"] == 0
    assert "imitation_coefficient has no effect" not in printed("unasked", 0.0)
