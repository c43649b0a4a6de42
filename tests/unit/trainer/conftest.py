"""PPO on a tiny real model and reward model, as a recipe would run it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import Outcome, Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.ppo.config import PPOConfig
from trainer.rollouts.collect import RewardConfig
from trainer.runtime.config import RuntimeConfig
from trainer.stages.ppo import run_ppo

LAST_MOMENTS = ("checkpoint", "weights", "saved", "manifest")


def die_after_the_last_update(patch: pytest.MonkeyPatch, moment: str, last: int) -> None:
    """Make a training die once its last update, number `last`, is done: after the checkpoint of
    this update, before the weights are saved, after that, or before the manifest is written."""
    import trainer.runtime.stage as stage
    import trainer.training.checkpoints as checkpoints

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    real = checkpoints.mark_whole

    def mark_and_die(checkpoint: Path, step: int, *more: Any, **named: Any) -> None:
        real(checkpoint, step, *more, **named)
        if step == last:
            raise KeyboardInterrupt

    if moment == "checkpoint":
        patch.setattr(checkpoints, "mark_whole", mark_and_die)
    elif moment == "weights":
        real_save = Trainer.save_model

        def save_no_result(self: Any, output_dir: str | None = None, **named: Any) -> None:
            if "checkpoint-" not in str(output_dir):
                raise KeyboardInterrupt
            real_save(self, output_dir, **named)

        patch.setattr(Trainer, "save_model", save_no_result)
    elif moment == "saved":
        patch.setattr(Trainer, "save_state", die)
    else:
        patch.setattr(stage, "write_manifest", die)


@pytest.fixture(params=LAST_MOMENTS if "THINKTREE_ALL_KILLS" in os.environ else ("saved",))
def die_late(request: pytest.FixtureRequest) -> Callable[[pytest.MonkeyPatch, int], None]:
    """`die_after_the_last_update` at one of its moments; with THINKTREE_ALL_KILLS at each."""
    return lambda patch, last: die_after_the_last_update(patch, request.param, last)


class Finishes:
    """A chain with a known optimum: something, then the end, within the token limit."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.CORRECT if solution else Outcome.WRONG)


@dataclass(frozen=True)
class Workshop:
    """`folder` holds `policy`, `prm` and `data`."""

    folder: Path
    problems: list[Problem]

    def config(self, **changes: Any) -> PPOConfig:
        values: dict[str, Any] = {
            "policy": str(self.folder / "policy"),
            "data": str(self.folder / "data"),
            "verifier": "finishes",
            "problems_per_cycle": 4,
            "samples_per_problem": 8,
            "max_new_tokens": 4,
            "micro_batch_size": 8,
            "minibatches": 2,
            "cycles": 4,
            "evaluation_problems": 4,
            "evaluate_every": 2,
            "save_every": 2,
        }
        return PPOConfig(**(values | changes))

    def run(self, name: str, config: PPOConfig, rewards: RewardConfig | None = None) -> Path:
        out = self.folder / name
        runtime = RuntimeConfig(output_dir=str(out), wandb=False)
        run_ppo(runtime, config, rewards or RewardConfig())
        return out

    @staticmethod
    def metrics(out: Path) -> list[dict[str, Any]]:
        """Of every cycle, without the seconds."""
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


@pytest.fixture
def ppo(tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    save_model(*tiny_policy, tmp_path / "policy")
    torch.manual_seed(0)
    prm = reward_model_from_policy(str(tmp_path / "policy"))
    save_model(prm, tiny_policy[1], tmp_path / "prm")
    problems = [make_problem((1, 2, 3 + i), 6 + i) for i in range(8)]
    (tmp_path / "data").mkdir()
    write_problems(tmp_path / "data" / "train.jsonl", problems)
    held_out = [make_problem((1, 1, 3 + i), 5 + i) for i in range(8)]
    write_problems(tmp_path / "data" / "validation.jsonl", held_out)
    monkeypatch.setitem(VERIFIERS, "finishes", Finishes)
    return Workshop(folder=tmp_path, problems=problems)
