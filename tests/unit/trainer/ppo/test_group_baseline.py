"""The mean return of a problem's other samples as the baseline, and a critic that does not run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer.ppo.actor_critic import Critic
from trainer.ppo.advantages import mean_of_others
from trainer.ppo.config import PPOConfig
from trainer.runtime.manifests import read_manifest

GROUP: dict[str, Any] = {"baseline": "group", "value_coefficient": 0.0}


def test_the_mean_of_the_others_by_hand() -> None:
    """Two problems of three samples: 1, 0, 2 and 3, 3, 3."""
    returns = torch.tensor([1.0, 0.0, 2.0, 3.0, 3.0, 3.0])
    assert mean_of_others(returns, 3).tolist() == [1.0, 1.5, 0.5, 3.0, 3.0, 3.0]


@pytest.mark.slow
def test_it_reaches_the_optimum_of_a_chain_without_a_critic(
    ppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ppo.config(
        cycles=30, problems_per_cycle=8, samples_per_problem=32, micro_batch_size=64,
        learning_rate=5e-3, critic_learning_rate=5e-3, kl_coefficient=0.0,
        learning_rate_decay=False, evaluate_every=30, save_every=100, **GROUP,
    )  # fmt: skip

    def runs(*_: Any) -> Any:
        raise AssertionError("the critic ran")

    monkeypatch.setattr(Critic, "forward", runs)
    metrics = ppo.metrics(ppo.run("chain", config))
    assert metrics[0]["correct"] < 0.2 and metrics[-1]["correct"] > 0.95
    assert all(row["value_loss"] >= 0 and row["first_ratio_error"] == 0 for row in metrics)


def test_the_critic_stays_as_it_was_and_is_not_paid_for(ppo: Any) -> None:
    config = ppo.config(
        cycles=1, learning_rate=1e-3, critic_learning_rate=1e-3, evaluation_problems=0
    )
    folders = {
        name: ppo.run(name, changed)
        for name, changed in (("critic", config), ("group", replace(config, **GROUP)))
    }
    weights = {
        name: load_file(out / "critic" / "model.safetensors") for name, out in folders.items()
    }
    spent = {
        name: sum(row["flops"] for row in read_manifest(out)["usage"]["ledger"])
        for name, out in folders.items()
    }
    assert spent["group"] < 0.7 * spent["critic"]
    start = load_file(ppo.folder / "policy" / "model.safetensors")
    for name, tensor in weights["group"].items():
        original = start.get(name, start.get(f"model.{name}"))
        if original is not None:
            assert torch.equal(tensor, original), name
    assert any(not torch.equal(weights["critic"][n], t) for n, t in weights["group"].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "groups"}, "baseline is 'groups'; allowed: critic, group"),
        ({"baseline": "group"}, "set value_coefficient"),
        ({**GROUP, "samples_per_problem": 1}, "samples_per_problem to at least 2"),
        ({**GROUP, "value_rollouts": 2}, "value_rollouts to 0"),
    ],
)
def test_what_it_needs_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(
            **{"policy": "a", "data": "b", "verifier": "countdown", "max_new_tokens": 64} | changes
        )
