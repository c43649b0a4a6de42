"""GRPO and RLOO: what a solution earns, by hand, and two steps of TRL on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import ModelUsage, Usage
from rewards.verifiers.by_name import VERIFIERS
from search.base import ScoreResult
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.models.loading import save_model
from trainer.rollouts.held_out import HeldOutConfig
from trainer.rollouts.judging import Judges
from trainer.rollouts.solution_reward import GroupRLConfig, KeepsCounts, SolutionReward
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.group_rl import run_group_rl, training_flops, training_passes
from trainer.training.checkpoints import mark_whole

PROBLEM = make_problem((1, 2, 3), 6)
RIGHT = "1 + 2 = 3 | 3 3\n3 + 3 = 6 | 6"


class Halves:
    """0.5 after the first step of a solution, 0.25 after every other."""

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score_batch(self, items: Any) -> list[ScoreResult]:
        return [
            ScoreResult(
                scores=(0.5, *[0.25] * (len(request.step_ends) - 1)), usage=ModelUsage(sequences=1)
            )
            for _, request in items
        ]


def reward_of(tiny_policy: Any, **changes: Any) -> SolutionReward:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    return SolutionReward(
        engine=engine,
        judges=Judges(engine=engine, verifier=VERIFIERS["countdown"](), scorer=Halves()),
        config=GroupRLConfig(policy="p", data="d", reward_model="r", verifier="math", **changes),
        problems={PROBLEM.id: PROBLEM},
    )


def test_what_a_solution_earns(tiny_policy: Any) -> None:
    reward = reward_of(tiny_policy)
    encode, end = reward.engine.encode, reward.engine.end_token_id
    right, wrong = encode(RIGHT), encode(RIGHT.replace("3 + 3 = 6 | 6", "3 - 3 = 0 | 0"))
    solutions = [(*right, end), right, (*wrong, end)]
    ids = [PROBLEM.id] * 3
    # correct; correct but cut off; wrong
    assert reward(completion_ids=solutions, problem_id=ids) == [1.0, 0.0, 0.0]
    spent = reward.usage
    assert spent.policy.generated_tokens == sum(map(len, solutions)) and spent.policy.sequences == 3
    assert spent.reward.sequences == 0
    both = reward_of(tiny_policy, process_weight=2.0)
    # The smallest score is 0.25; a truncated solution gets none of it.
    assert both(completion_ids=solutions, problem_id=ids) == [1.5, 0.0, 0.5]
    assert both.usage.reward.sequences == 3
    form = reward_of(tiny_policy, outcome="format")
    assert form(completion_ids=solutions, problem_id=ids) == [1.0, 0.0, 1.0]


def run_steps(
    tiny_policy: Any, folder: Path, algorithm: str, steps: int = 2, **changes: Any
) -> Path:
    """Steps of TRL's trainer on four problems, which two steps go through; returns the stage's
    folder."""
    save_model(*tiny_policy, folder / "policy")
    (folder / "data").mkdir()
    problems = [make_problem((1, 2, 3 + i), 6 + i) for i in range(4)]
    write_problems(folder / "data" / "train.jsonl", problems)
    held_out = [make_problem((1, 1, 3 + i), 5 + i) for i in range(4)]
    write_problems(folder / "data" / "validation.jsonl", held_out)
    return run_from(folder, algorithm, steps, **changes)


def run_from(folder: Path, algorithm: str, steps: int, **changes: Any) -> Path:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.rloo_config import RLOOConfig

    out = folder / "out"
    arguments = {"grpo": GRPOConfig, "rloo": RLOOConfig}[algorithm](
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=8, num_generations=4,
        learning_rate=1e-2, beta=0.1, bf16=False, report_to=[],
        gradient_checkpointing=False, use_cpu=True, disable_tqdm=True, save_steps=1,
    )  # fmt: skip
    config = GroupRLConfig(
        policy=str(folder / "policy"),
        data=str(folder / "data"),
        verifier="countdown",
        **({"outcome": "random"} | changes),
    )
    evaluation = HeldOutConfig(evaluate_every=2, evaluation_problems=3, max_new_tokens=6)
    runtime = RuntimeConfig(output_dir=str(out), wandb=False)
    run_group_rl(algorithm, runtime, config, evaluation, arguments)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_no_update_follows_the_last_one(
    tiny_policy: Any, tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch, die_late: Any
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = run_steps(tiny_policy, tmp_path / "whole", algorithm, 3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_late(patch, 3)
        run_steps(tiny_policy, tmp_path / "cut", algorithm, 3)
    again = run_from(tmp_path / "cut", algorithm, 3)
    found = [read_manifest(out) for out in (whole, again)]
    for key in ("outputs", "usage", "metrics"):
        assert found[0][key] == found[1][key]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_two_steps_of_trl(tiny_policy: Any, tmp_path: Path, algorithm: str) -> None:
    out = run_steps(tiny_policy, tmp_path, algorithm)
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "policy", out))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    manifest = json.loads((out / "manifest.json").read_text())
    sampling, _, evaluating, _, training = manifest["usage"]["ledger"]
    rows = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [(r["cycle"], r["problems"]) for r in rows] == [(0, 3), (2, 3)]
    sampled = sampling["generated_tokens"]
    assert [r["sampled_tokens"] for r in rows] == [0, sampled]
    assert manifest["metrics"]["sampled_tokens"] == sampled
    assert evaluating["sequences"] == 6 and 6 <= evaluating["generated_tokens"] <= 36
    assert sampling["sequences"] == 16 and 16 <= sampling["generated_tokens"] <= 96
    assert training["positions"] > sampling["generated_tokens"] and training["flops"] > 0
    assert manifest["metrics"]["updates"] == 2 and not [*out.glob("checkpoint-*")]


def test_samples_that_are_not_learnt_from_have_no_backward_pass() -> None:
    arguments = SimpleNamespace(
        steps_per_generation=1, num_iterations=1, gradient_accumulation_steps=1, beta=0.1
    )
    spent: Any = SimpleNamespace(flops=10.0, unlearnt_flops=4.0)
    # 3 passes and the reference over 6, the reference alone over 4
    assert training_flops(spent, arguments) == 4 * 6.0 + 1 * 4.0


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_groups_that_earn_the_same_are_replaced_and_counted(
    tiny_policy: Any, tmp_path: Path, algorithm: str
) -> None:
    """Everything is wrong, so both groups of the step are replaced once: then no problem is left,
    and the first groups are learnt from. The step is that of a run without filtering."""
    ledgers: list[Any] = []
    weights: list[Any] = []
    for rounds in (0, 3):
        (tmp_path / str(rounds)).mkdir()
        out = run_steps(
            tiny_policy, tmp_path / str(rounds), algorithm, 1, outcome="verifier",
            filter_rounds=rounds,
        )  # fmt: skip
        ledgers.append(json.loads((out / "manifest.json").read_text())["usage"]["ledger"])
        weights.append(load_file(out / "model.safetensors"))
    (plain, _, _, _, learnt), (filtered, _, _, _, kept) = ledgers
    assert (plain["sequences"], filtered["sequences"]) == (8, 16)
    assert kept["positions"] == learnt["positions"]
    assert kept["flops"] > learnt["flops"]  # the reference reads the others too
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-6), name


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 3),  # one step on each sample: what it was sampled by is what it is learnt by
        ({"beta": 0.1}, 4),
        ({"num_iterations": 2, "beta": 0.1}, 8),  # two epochs, reference, old log-probabilities
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 4}, 4),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 2}, 3),
    ],
)
def test_forward_passes_of_training(tmp_path: Path, changes: dict[str, Any], passes: int) -> None:
    from trl.trainer.grpo_config import GRPOConfig

    arguments = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, bf16=False,
        use_cpu=True, **({"beta": 0.0} | changes),
    )  # fmt: skip
    assert training_passes(arguments) == passes


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_checkpoint_of_another_batch_size_is_refused(
    tiny_policy: Any, tmp_path: Path, algorithm: str
) -> None:
    checkpoint = tmp_path / "out" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    mark_whole(checkpoint, 1, 1, batch=6, verdicts={})
    with pytest.raises(ValueError, match="6 sequences per update, but this run takes 8"):
        run_steps(tiny_policy, tmp_path, algorithm)


def test_what_was_spent_is_kept_in_checkpoints(tiny_policy: Any, tmp_path: Path) -> None:
    reward, again = reward_of(tiny_policy), reward_of(tiny_policy)
    reward(completion_ids=[(5, 6)], problem_id=[PROBLEM.id])
    (tmp_path / "checkpoint-3").mkdir()

    class At:
        output_dir = str(tmp_path)
        global_step = 3

    KeepsCounts(reward, 0).on_save(At, At, None)
    KeepsCounts(again, 0).restore(tmp_path / "checkpoint-3")
    assert again.usage == reward.usage != Usage()
    assert (again.positions, again.flops) == (reward.positions, reward.flops)
    with pytest.raises(ValueError, match="fewer processes"):
        KeepsCounts(again, 1).restore(tmp_path / "checkpoint-3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": "luck"}, "outcome is 'luck'; allowed: verifier, format, random"),
        ({"aggregate": "sum"}, "aggregate is 'sum'"),
        ({"process_weight": 1.0}, "no reward_model is given"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupRLConfig(**{"policy": "a", "data": "b", "verifier": "countdown"} | changes)
