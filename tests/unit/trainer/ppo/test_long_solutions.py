"""PPO of policies that think: limits that grow, truncated solutions, clip-higher, length."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data.tasks.countdown import make_problem
from data.tokenizers import build_tokenizer
from data.types import ModelUsage, StopReason
from rewards.verifiers.by_name import VERIFIERS
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.ppo.batch import make_batch
from trainer.ppo.config import PPOConfig
from trainer.ppo.losses import policy_loss
from trainer.rollouts.collect import (
    Completion,
    RewardConfig,
    Rollout,
    RolloutRequest,
    SamplingConfig,
    collect_rollouts,
)
from trainer.rollouts.judging import Judges
from trainer.rollouts.solution_reward import GroupRLConfig

CPU = torch.device("cpu")


def settings(**changes: Any) -> PPOConfig:
    return PPOConfig(
        **{"policy": "a", "data": "b", "verifier": "countdown", "max_new_tokens": 64} | changes
    )


def rollout(*, truncated: bool) -> Rollout:
    return Rollout(
        problem_id="p", prompt_ids=(5, 6), response_ids=(7, 8, 9), text="", step_ends=(2,),
        scores=(), outcome=1.0, correct=True, truncated=truncated, rewards=(1.0,),
    )  # fmt: skip


def test_the_limit_grows_evenly() -> None:
    config = settings(first_max_new_tokens=24, growth_cycles=4)
    assert [config.limit_in(cycle) for cycle in range(6)] == [24, 34, 44, 54, 64, 64]
    assert {settings().limit_in(cycle) for cycle in range(3)} == {64}


def test_limits_are_taken_in_turn() -> None:
    config = settings(limits=[64, 16, 32])
    assert [config.limit_in(cycle) for cycle in range(5)] == [64, 16, 32, 64, 16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_max_new_tokens": 10}, "give both, or leave both out"),
        ({"growth_cycles": 3}, "give both, or leave both out"),
        ({"first_max_new_tokens": 65, "growth_cycles": 3}, "at most max_new_tokens, 64"),
        ({"first_max_new_tokens": 0, "growth_cycles": 3}, "must be at least 1"),
        ({"first_max_new_tokens": 8, "growth_cycles": -3}, "must be at least 1"),
        ({"limits": [8, 65]}, "at most max_new_tokens, 64"),
        ({"limits": [0]}, "must be at least 1"),
        ({"limits": [8], "first_max_new_tokens": 8, "growth_cycles": 3}, "leave one of them out"),
        ({"clip_high": 0.1}, "clip_high is 0.1; it must be at least clip, 0.2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_clip_higher_by_hand() -> None:
    """Ratios 1.25 and 0.75 with the range [0.8, 1.3], each with an advantage of either sign."""
    new = torch.tensor([[math.log(1.25), math.log(1.25), math.log(0.75), math.log(0.75)]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    mask = torch.ones(1, 4)
    loss, _ = policy_loss(new, torch.zeros(1, 4), advantages, mask, (0.2, 0.3), 4.0)
    # 1.25 is inside; min(0.75, 0.8) = 0.75; min(-0.75, -0.8) = -0.8
    assert float(loss) == pytest.approx(-(1.25 - 1.25 + 0.75 - 0.8) / 4)


def test_truncated_solutions_can_be_masked() -> None:
    rows = [rollout(truncated=False), rollout(truncated=True)]
    batch = make_batch(rows, 0, 1.0, CPU, mask_truncated=True)
    assert batch.mask_BP.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1] * 5, [1] * 5]  # its passes are still counted
    plain = make_batch(rows, 0, 1.0, CPU)
    assert plain.mask_BP.tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("limit", [12, 1])
def test_a_run_learns_nothing_from_masked_solutions(ppo: Any, limit: int) -> None:
    """With a limit of one token all are truncated, and there is no gradient."""
    config = ppo.config(
        cycles=1, mask_truncated=True, max_new_tokens=limit, evaluation_problems=0,
        micro_batch_size=2,
    )  # fmt: skip
    [row] = ppo.metrics(ppo.run("out", config))
    assert all(math.isfinite(row[name]) for name in ("kl", "policy_loss", "ratio_mean", "entropy"))
    solutions = config.problems_per_cycle * config.samples_per_problem
    truncated = row["truncation_share"] * solutions
    assert row["tokens"] == pytest.approx(row["length"] * solutions - limit * truncated)
    if limit == 1:
        assert (row["truncation_share"], row["tokens"], row["grad_norm"]) == (1.0, 0.0, 0.0)
    else:
        assert 0 < row["truncation_share"] < 1 and row["grad_norm"] > 0


def test_a_growing_limit_bounds_the_cycles_solutions(ppo: Any) -> None:
    config = ppo.config(
        cycles=3, first_max_new_tokens=2, growth_cycles=2, max_new_tokens=12, evaluation_problems=0
    )
    rows = ppo.metrics(ppo.run("out", config))
    assert rows[0]["length"] <= 2 < rows[2]["length"] <= 12


def test_limits_in_turn_bound_the_cycles_solutions(ppo: Any) -> None:
    config = ppo.config(cycles=3, limits=[2, 12, 3], max_new_tokens=12, evaluation_problems=0)
    lengths = [row["length"] for row in ppo.metrics(ppo.run("out", config))]
    assert lengths[0] <= 2 and 3 < lengths[1] <= 12 and lengths[2] <= 3


def test_length_counts_in_the_outcome(ppo: Any, tiny_policy: Any) -> None:
    """Half at the target, 0.05 per token around it; truncated solutions keep their reward."""
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    request = RolloutRequest(
        problems=[make_problem((1, 2, 3), 6)],
        sampling=SamplingConfig(samples_per_problem=16, max_new_tokens=12, temperature=1.0),
        rewards=RewardConfig(length_target=6, length_penalty=0.05, truncated_reward=-1.0),
        cycle=0,
    )
    judges = Judges(engine=engine, verifier=VERIFIERS["finishes"]())
    found, _ = collect_rollouts(judges, request)
    assert {r.truncated for r in found} == {True, False}
    for one in found:
        expected = 0.5 + 0.05 * (6 - len(one.response_ids))
        assert one.outcome == (-1.0 if one.truncated else pytest.approx(expected * one.correct))
    again, _ = collect_rollouts(judges, replace(request, rewards=RewardConfig()))
    assert all(r.outcome == float(r.correct) for r in again)


def test_both_kinds_of_learners_check_the_length_reward() -> None:
    with pytest.raises(ValueError, match="length_target is -5"):
        RewardConfig(length_target=-5)
    with pytest.raises(ValueError, match="length_penalty is 0"):
        GroupRLConfig(policy="a", data="b", verifier="countdown", length_penalty=0)


THOUGHT = """<think>
numbers 3 4 7 target 5
try 7 - 4 = 2 | 3 2
check 2 < 5
instead 4 - 3 = 1 | 7 1
spent back 9 9
</think>
7 - 4 = 2 | 3 2
2 + 3 = 5 | 5"""


def test_false_lines_of_a_thought_cost_their_penalty() -> None:
    """7 - 4 is 3, and 9 9 was never reached. The false step of the answer is the verifier's."""
    problem = make_problem((3, 4, 7), 5)
    tokenizer = build_tokenizer("thoughts", max_number=30)
    policy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    engine = TransformersEngine(policy, tokenizer, EngineConfig(seed=1))
    judges = Judges(engine=engine, verifier=VERIFIERS["countdown"]())
    request = RolloutRequest(
        problems=[problem],
        sampling=SamplingConfig(samples_per_problem=1, max_new_tokens=99, temperature=1.0),
        rewards=RewardConfig(false_line_penalty=0.25, truncated_reward=-1.0),
        cycle=0,
    )
    whole = (*engine.encode(THOUGHT), engine.end_token_id)

    def rewards(ids: tuple[int, ...], stop: StopReason) -> tuple[float, ...]:
        def sample(*_: Any) -> Any:
            return [[Completion(token_ids=ids, stop_reason=stop)]], ModelUsage()

        [found], _ = collect_rollouts(judges, request, sample)
        return found.rewards

    assert rewards(whole, StopReason.END_OF_SOLUTION) == (
        0, 0, -0.25, 0, 0, -0.25, 0, 0, 0,
    )  # fmt: skip
    # Cut off inside a line: the line may have become true. The step before the cut is judged.
    cut = engine.encode(THOUGHT[: THOUGHT.index(" 3 2\ncheck")])
    assert rewards(cut, StopReason.LENGTH) == (0, 0, -1.0)
    with pytest.raises(ValueError, match="false_line_penalty is -1"):
        RewardConfig(false_line_penalty=-1)
