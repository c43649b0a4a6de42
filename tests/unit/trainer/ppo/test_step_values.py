"""Values of steps from rollouts: advantages by hand, and what a run counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.types import ModelUsage, Outcome, Problem, Sample, StopReason, Verdict
from search.base import ROLLOUT_INDEX, SampleRequest, SampleResult
from trainer.ppo.batch import make_batch
from trainer.ppo.config import PPOConfig
from trainer.ppo.step_values import sample_step_values, with_step_advantages
from trainer.ppo.update import Learner
from trainer.rollouts.collect import RewardConfig, Rollout, RolloutRequest, SamplingConfig
from trainer.rollouts.judging import Judges

# The outcomes of the two rollouts from each state; 9 ends a step.
OUTCOMES = {(): (1, 0), (1, 9): (1, 1), (1, 9, 2, 9): (0, 0), (1, 9, 4, 9): (1, 0)}
PROMPT = (5, 5)


class Engine:
    seed = 3

    def __init__(self) -> None:
        self.asked: list[SampleRequest] = []

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]:
        self.asked = [request for _, request in items]
        return [
            SampleResult(
                samples=tuple(
                    Sample(
                        token_ids=(7,) if right else (8,), step_logprobs=(0.0,),
                        step_entropies=(0.0,), stop_reason=StopReason.END_OF_SOLUTION,
                    )
                    for right in OUTCOMES[request.prefix[len(PROMPT) :]]
                ),
                usage=ModelUsage(generated_tokens=request.n),
            )
            for request in self.asked
        ]  # fmt: skip

    def step_ends(self, ids: Sequence[int]) -> list[int]:
        return [i for i, token in enumerate(ids) if token == 9 or i == len(ids) - 1]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(str, ids))


class EndsWith7:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.CORRECT if solution[-1] == "7" else Outcome.WRONG)


def rollout(response: tuple[int, ...], outcome: float) -> Rollout:
    return Rollout(
        problem_id="p", prompt_ids=PROMPT, response_ids=response, text="", step_ends=(1, 3, 4),
        scores=(), outcome=outcome, correct=outcome == 1.0, truncated=False,
        rewards=(0.0, 0.0, outcome),
    )  # fmt: skip


ROLLOUTS = [rollout((1, 9, 2, 9, 3), 0.0), rollout((1, 9, 4, 9, 7), 1.0)]


def test_advantages_by_hand() -> None:
    engine: Any = Engine()
    request = RolloutRequest(
        problems=[Problem(id="p", prompt="", answer="")],
        sampling=SamplingConfig(samples_per_problem=2, max_new_tokens=6, temperature=0.5),
        rewards=RewardConfig(), cycle=4,
    )  # fmt: skip
    found = sample_step_values(Judges(engine=engine, verifier=EndsWith7()), ROLLOUTS, request, 2)
    assert found.values == [(0.5, 1.0, 0.0), (0.5, 1.0, 0.5)]
    assert (found.states, found.total) == (4, 2.0)
    assert found.usage.policy.generated_tokens == 4 * 2
    assert [len(asked.prefix) - 2 for asked in engine.asked] == [0, 2, 4, 4]  # equal states once
    assert [asked.max_new_tokens for asked in engine.asked] == [6, 4, 2, 2]
    assert [asked.first_index - ROLLOUT_INDEX for asked in engine.asked] == [0, 2, 4, 6]
    assert {(asked.node, asked.n, asked.temperature) for asked in engine.asked} == {(4, 2, 0.5)}
    wrong, right = with_step_advantages(ROLLOUTS, found.values)
    # r + V(after) - V(before), and nothing after the last step
    assert wrong.rewards == (1.0 - 0.5, 0.0 - 1.0, 0.0 - 0.0)
    assert right.rewards == (1.0 - 0.5, 0.5 - 1.0, 1.0 - 0.5)


def test_every_token_of_a_step_has_its_advantage() -> None:
    values = [(0.5, 1.0, 0.0), (0.5, 1.0, 0.5)]
    accelerator = SimpleNamespace(device="cpu", reduce=lambda total, reduction: total)
    config = PPOConfig(
        policy="p", data="d", verifier="countdown", max_new_tokens=6, value_rollouts=2,
        value_coefficient=0.0, gae_lambda=0.3,
    )  # fmt: skip
    none: Any = None
    learner = Learner(
        accelerator=accelerator, model=none, optimizer=none, reference=none, config=config,
        pad_token_id=0, seed=0,
    )  # fmt: skip
    batch = make_batch(with_step_advantages(ROLLOUTS, values), 0, 0.0, torch.device("cpu"))
    kl_BP = 0.25 * batch.mask_BP
    # The critic's values are not used.
    batch = batch.with_columns(logprobs_BP=kl_BP, values_BP=100.0 * batch.mask_BP)
    estimated = learner.estimate(batch, 0.5)
    # A step's advantage, less 0.125 for each token up to the step's end
    assert estimated.returns_BP.tolist() == [
        [0.0, 0.25, 0.375, -1.25, -1.125, -0.125],
        [0.0, 0.25, 0.375, -0.75, -0.625, 0.375],
    ]


def test_a_run_counts_the_rollouts_from_steps(ppo: Any) -> None:
    options = {"cycles": 2, "evaluation_problems": 0, "value_coefficient": 0.0}
    plain = ppo.run("plain", ppo.config(**options))
    valued = ppo.run("valued", ppo.config(**options, value_rollouts=2))

    def sampled(out: Any) -> int:
        ledger = json.loads((out / "manifest.json").read_text())["usage"]["ledger"]
        return sum(row["generated_tokens"] for row in ledger if row["model"] == "policy")

    rows = ppo.metrics(valued)
    first, before = rows[0], ppo.metrics(plain)[0]
    assert first["tokens"] == before["tokens"] and first["reward"] == before["reward"]
    assert first["value_states"] >= 4 and 0.0 <= first["mean_step_value"] <= 1.0
    assert sampled(valued) == sum(row["tokens"] + row["value_tokens"] for row in rows)
    assert "value_tokens" not in before


def test_what_value_rollouts_need_is_said(ppo: Any) -> None:
    with pytest.raises(ValueError, match="set value_coefficient to 0"):
        ppo.config(value_rollouts=2)
    config = ppo.config(value_rollouts=2, value_coefficient=0.0)
    with pytest.raises(ValueError, match="value_rollouts needs shape outcome"):
        ppo.run("out", config, RewardConfig(step_discount=0.9))
    assert not (ppo.folder / "out").exists()
