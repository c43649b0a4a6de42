"""PPO on a tiny real model: what it learns, and that nothing else changes what it learns."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from data.tasks.countdown import make_problem
from data.types import ModelUsage, Outcome, Problem, TokenRow, Verdict
from search.base import ScoreResult
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.models.loading import load_policy, reward_model_from_policy
from trainer.ppo.actor_critic import ActorCritic, token_logprobs
from trainer.ppo.batch import make_batch
from trainer.ppo.config import PPOConfig
from trainer.ppo.critic_folders import build_critic
from trainer.ppo.guards import Evaluation, dead_signals, stop_reason
from trainer.ppo.loop import PPORun, problem_order
from trainer.ppo.metrics import CycleMetrics, CycleRecord, EngineGapMetrics
from trainer.ppo.update import Learner
from trainer.rollouts.collect import (
    RewardConfig,
    Rollout,
    RolloutRequest,
    SamplingConfig,
    collect_rollouts,
)
from trainer.rollouts.judging import Judges
from trainer.training.checkpoints import PLAIN

PROBLEMS = [make_problem((1, 2, 3 + i), 6 + i) for i in range(8)]


class Finishes:
    """A chain with a known optimum: something, then the end, within the token limit."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.CORRECT if solution else Outcome.WRONG)


@pytest.mark.slow
def test_ppo_reaches_the_optimum_of_a_chain(ppo: Any) -> None:
    config = ppo.config(
        cycles=30,
        problems_per_cycle=8,
        samples_per_problem=32,
        micro_batch_size=64,
        learning_rate=5e-3,
        critic_learning_rate=5e-3,
        kl_coefficient=0.0,
        learning_rate_decay=False,
        evaluate_every=30,
        save_every=100,
    )
    metrics = ppo.metrics(ppo.run("chain", config))
    assert metrics[0]["correct"] < 0.2
    assert metrics[-1]["correct"] > 0.95
    assert all(row["first_ratio_error"] == 0.0 for row in metrics)  # exactly 1 before any step
    assert metrics[0]["kl"] == 0.0


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_the_same(ppo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ppo.config(
        reward_model=str(ppo.folder / "prm"), critic="reward_model", learning_rate=1e-3,
        kl_target=1.0,
    )  # fmt: skip
    rewards = RewardConfig(shape="potential")
    whole = ppo.run("whole", config, rewards)
    report = PPORun._report

    def dies(self: PPORun, record: CycleRecord, *rest: Any) -> None:
        report(self, record, *rest)
        if record.cycle == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(PPORun, "_report", dies)
    with pytest.raises(KeyboardInterrupt):
        ppo.run("cut", config, rewards)
    assert len(ppo.metrics(ppo.folder / "cut")) == 4  # one of them after the checkpoint
    monkeypatch.setattr(PPORun, "_report", report)
    again = ppo.run("cut", config, rewards)
    assert ppo.metrics(again) == ppo.metrics(whole)
    for name in ("completions.jsonl", "evaluations.jsonl"):
        assert (again / name).read_text() == (whole / name).read_text()
    first, second = (load_file(out / "model.safetensors") for out in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    ledger = [json.loads((out / "manifest.json").read_text())["usage"] for out in (whole, again)]
    assert ledger[0] == ledger[1] and ledger[0]["ledger"][0]["generated_tokens"] > 0


def test_a_checkpoint_of_another_optimizer_layout_is_refused(
    ppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in the folder changes, and with the first layout the run goes on."""
    config = ppo.config(cycles=2, save_every=1, evaluation_problems=0)

    def dies(self: PPORun) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PPORun, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            ppo.run("cut", config)
    folder = ppo.folder / "cut"
    file = folder / "checkpoint-2" / "checkpoint_manifest.json"
    saved = file.read_text()
    assert json.loads(saved)["optimizer"] == PLAIN
    file.write_text(json.dumps({**json.loads(saved), "optimizer": "DeepSpeed ZeRO-3"}))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"another optimizer layout \(DeepSpeed ZeRO-3; now: "):
        ppo.run("cut", config)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    file.write_text(saved)
    assert len(ppo.metrics(ppo.run("cut", config))) == 2


def rollouts_of(tiny_policy: Any, **changes: Any) -> list[Rollout]:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    sampling = SamplingConfig(samples_per_problem=4, max_new_tokens=12, temperature=1.0)
    request = RolloutRequest(
        problems=PROBLEMS[:4], sampling=sampling, rewards=RewardConfig(**changes), cycle=0
    )
    return collect_rollouts(Judges(engine=engine, verifier=Finishes()), request)[0]


def learner_of(ppo: Path, micro_batch_size: int, **changes: Any) -> tuple[Learner, Any]:
    config = ppo.config(micro_batch_size=micro_batch_size, minibatches=1, epochs=1)
    config = replace(config, max_grad_norm=1e9, **changes)
    accelerator = Accelerator(gradient_accumulation_steps=16 // micro_batch_size)
    accelerator.gradient_accumulation_steps = 16 // micro_batch_size
    policy, tokenizer = load_policy(config.policy)
    critic = build_critic("reward_model", config.policy, str(ppo.folder / "prm"))
    model = ActorCritic(policy, critic)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    return (
        Learner(
            accelerator=accelerator,
            model=model,
            optimizer=optimizer,
            reference=lambda ids, mask: token_logprobs(policy, ids, mask)[0],
            config=config,
            pad_token_id=tokenizer.pad_token_id,
            seed=3,
        ),
        model,
    )


def test_micro_batches_change_nothing(ppo: Any, tiny_policy: Any) -> None:
    rollouts = [
        replace(r, rewards=tuple(float(i % 3) for _ in r.rewards))
        for i, r in enumerate(rollouts_of(tiny_policy))
    ]
    assert len({len(r.response_ids) for r in rollouts}) > 2  # rows of several lengths
    copies = [TokenRow(prompt_ids=(5, 6, 7), completion_ids=(8, 9, 1))]
    found: list[tuple[dict[str, float], dict[str, torch.Tensor]]] = []
    for size in (16, 8, 2, 1):
        learner, model = learner_of(ppo, size, imitation_coefficient=0.5, trajectories=["x"])
        batch = make_batch(rollouts, 0, 0.9, torch.device("cpu"))
        orders = learner.orders(0, len(batch))
        batch, _ = learner.evaluate_old(batch, orders[0])
        batch = learner.estimate(batch, 0.1)
        sums = learner.learn(batch, orders, 0, copies)
        assert sums.steps == 1 and sums.first_ratio_error == 0.0
        found.append((asdict(sums), {k: v.clone() for k, v in model.state_dict().items()}))
    for sums, weights in found[1:]:
        for name in ("policy_loss", "value_loss", "imitation_loss", "grad_norm"):
            assert sums[name] == pytest.approx(found[0][0][name], abs=1e-6, rel=1e-5), name
        for name, weight in weights.items():
            assert torch.allclose(weight, found[0][1][name], atol=1e-5), name


def test_a_minibatch_is_sorted_by_length_and_keeps_its_rows(ppo: Any, tiny_policy: Any) -> None:
    learner, _ = learner_of(ppo, 2)
    learner = replace(learner, config=replace(learner.config, minibatches=2))
    batch = make_batch(rollouts_of(tiny_policy), 0, 1.0, torch.device("cpu"))
    lengths = batch.attention_mask.sum(1)
    order = torch.arange(len(batch)).flip(0)
    minibatches = learner.minibatch_indices(batch, order)
    for part, indices in zip(order.chunk(2), minibatches, strict=True):
        rows = torch.cat(indices)
        assert sorted(rows.tolist()) == sorted(part.tolist())
        found = lengths[rows].tolist()
        assert found == sorted(found, reverse=True) and len(set(found)) > 1
        assert [len(index) for index in indices] == [2] * 4


def test_each_token_pays_for_its_divergence(ppo: Any, tiny_policy: Any) -> None:
    learner, _ = learner_of(ppo, 16, gae_lambda=1.0)
    batch = make_batch(rollouts_of(tiny_policy), 0, 1.0, torch.device("cpu"))
    kl_BP = 0.25 * batch.mask_BP
    batch = learner.estimate(batch.with_columns(logprobs_BP=kl_BP), 0.5)
    # undiscounted, from values of 0: what is still to come, 0.125 less a token
    to_come = batch.rewards_BP.flip(1).cumsum(1).flip(1)
    left = batch.mask_BP.flip(1).cumsum(1).flip(1)
    expected = (to_come - 0.125 * left) * batch.mask_BP
    assert torch.allclose(batch.returns_BP, expected, atol=1e-6)


def test_the_critic_s_returns_may_have_a_lambda_of_their_own(ppo: Any, tiny_policy: Any) -> None:
    """The actor's advantages stay those of its lambda, the critic learns the sums of rewards."""
    batch = make_batch(rollouts_of(tiny_policy), 0, 1.0, torch.device("cpu"))
    batch = batch.with_columns(values_BP=0.5 * batch.mask_BP)
    found = [
        learner_of(ppo, 16, gae_lambda=0.5, critic_gae_lambda=value)[0].estimate(batch, 0.0)
        for value in (None, 1.0)
    ]
    assert torch.equal(found[0].advantages_BP, found[1].advantages_BP)
    to_come = batch.rewards_BP.flip(1).cumsum(1).flip(1) * batch.mask_BP
    assert torch.allclose(found[1].returns_BP, to_come, atol=1e-6)
    assert not torch.allclose(found[0].returns_BP, to_come, atol=1e-2)
    with pytest.raises(ValueError, match="critic_gae_lambda is 2"):
        ppo.config(critic_gae_lambda=2.0)


def test_actor_and_critic_share_no_gradient(ppo: Any, tiny_policy: Any) -> None:
    _, model = learner_of(ppo, 16)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    for part, other in (("policy", "critic"), ("critic", "policy")):
        model.zero_grad(set_to_none=True)
        predicted = model(ids, torch.ones_like(ids))
        (predicted.logprobs_BP if part == "policy" else predicted.values_BP).sum().backward()
        names = [name for name, p in model.named_parameters() if p.grad is not None]
        assert names and not [name for name in names if name.startswith(other)]


@pytest.mark.parametrize("warmup", [0, 1])
def test_the_critic_can_learn_alone_at_first(ppo: Any, warmup: int) -> None:
    config = ppo.config(cycles=1, critic_warmup_cycles=warmup, evaluation_problems=0)
    out = ppo.run("out", config)
    before = load_file(ppo.folder / "policy" / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before) == bool(warmup)
    critic = load_file(out / "critic" / "model.safetensors")
    assert critic["score.bias"].abs().max() > 0  # it starts at 0
    assert (ppo.metrics(out)[0]["learning_rate"] == 0) == bool(warmup)


def test_a_clip_shared_with_the_critic_changes_the_actors_steps_little() -> None:
    """The critic's gradient makes the clip multiply the actor's by a factor. AdamW's step of a
    gradient of constant sign is the learning rate, whatever the factor is."""

    def longest(factors: Sequence[float]) -> float:
        weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = torch.optim.AdamW(
            [weight], lr=1.0, betas=(0.9, PPOConfig.adam_beta2), weight_decay=0.0
        )
        steps: list[float] = []
        for factor in factors:
            before = float(weight.detach())
            weight.grad = torch.full_like(weight, factor)
            optimizer.step()
            steps.append(abs(float(weight.detach()) - before))
        return max(steps)

    assert longest([0.01] * 200) == pytest.approx(1.0, abs=1e-5)
    assert longest([*[1.0] * 100, 0.01, *[1.0] * 100]) == pytest.approx(1.0, abs=0.01)
    # The critic fits at once: max over k of (1 - 0.9^k) / sqrt(1 - 0.99^k) = 2.1.
    assert 2.0 < longest([*[0.01] * 1000, *[1.0] * 100]) < 2.2


def test_the_critic_starts_as_the_reward_model_or_at_zero(ppo: Any) -> None:
    prm = reward_model_from_policy(str(ppo.folder / "prm")).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = torch.softmax(prm(input_ids=ids, attention_mask=mask).logits, -1)[..., 1]
        of = {
            start: build_critic(start, str(ppo.folder / "policy"), str(ppo.folder / "prm"))(
                ids, mask
            )
            for start in ("reward_model", "reward_backbone", "policy")
        }
    assert torch.allclose(of["reward_model"], expected, atol=1e-6)
    assert of["reward_backbone"].abs().max() == 0 and of["policy"].abs().max() == 0
    with pytest.raises(ValueError, match="no reward_model is given"):
        build_critic("reward_model", str(ppo.folder / "policy"), None)


def test_a_batch_by_hand() -> None:
    rollout = Rollout(
        problem_id="p", prompt_ids=(5, 6), response_ids=(7, 8, 9), text="", step_ends=(1, 2),
        scores=(), outcome=1.0, correct=True, truncated=False, rewards=(0.25, 1.0),
    )  # fmt: skip
    longer = replace(rollout, prompt_ids=(5,), response_ids=(7, 8, 9, 3, 1), step_ends=(1, 4))
    batch = make_batch([rollout, longer], 0, 0.9, torch.device("cpu"))
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 0], [5, 7, 8, 9, 3, 1]]
    assert batch.mask_BP.tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.rewards_BP.tolist() == [[0, 0, 0.25, 1, 0], [0, 0.25, 0, 0, 1]]
    expected = [[1, 1, 0.9, 0.9, 1], [1, 0.9, 1, 1, 0.9]]
    assert torch.allclose(batch.discount_BP, torch.tensor(expected))
    assert batch.rows(torch.tensor([0])).input_ids.tolist() == [[5, 6, 7, 8, 9]]
    with pytest.raises(ValueError, match="without tokens"):
        make_batch([replace(rollout, response_ids=())], 0, 1.0, torch.device("cpu"))


class Scorer:
    """As many scores as it is told to give."""

    shares_trunk = False

    def __init__(self, scores: Callable[[int], Sequence[float]]) -> None:
        self.scores = scores

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score_batch(self, items: Sequence[tuple[str, Any]]) -> list[ScoreResult]:
        return [
            ScoreResult(scores=tuple(self.scores(len(r.step_ends))), usage=ModelUsage(sequences=1))
            for _, r in items
        ]


def test_rollouts_are_judged(tiny_policy: Any) -> None:
    rollouts = rollouts_of(tiny_policy, truncated_reward=-0.5)
    assert {r.truncated for r in rollouts} == {True, False}
    for rollout in rollouts:
        last = -0.5 if rollout.truncated else 1.0
        assert rollout.rewards == (*[0.0] * (len(rollout.step_ends) - 1), last)
        assert rollout.correct is not rollout.truncated
    coins = {r.outcome for r in rollouts_of(tiny_policy, outcome="random") if not r.truncated}
    assert coins == {0.0, 1.0}


def test_what_fails_while_judging_names_the_problem(tiny_policy: Any) -> None:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    sampling = SamplingConfig(samples_per_problem=2, max_new_tokens=12, temperature=1.0)
    request = RolloutRequest(
        problems=PROBLEMS[:1], sampling=sampling, rewards=RewardConfig(), cycle=0
    )
    shaped = replace(request, rewards=RewardConfig(shape="step"))

    class Fails:
        def verify(self, problem: Problem, solution: str) -> Verdict:
            raise OSError("no disk")

    with pytest.raises(ValueError, match=r"problem countdown-1-2-3-to-6: the verifier failed: OSE"):
        many = replace(request, sampling=replace(sampling, samples_per_problem=16))
        collect_rollouts(Judges(engine=engine, verifier=Fails()), many)
    for scores, message in (
        (lambda n: [0.5] * (n + 1), "process rewards for"),
        (lambda n: [float("nan")] * n, "a process reward is nan"),
    ):
        with pytest.raises(ValueError, match=rf"problem countdown-1-2-3-to-6: .*{message}"):
            collect_rollouts(
                Judges(engine=engine, verifier=Finishes(), scorer=Scorer(scores)), shaped
            )


def test_a_loss_that_is_no_number_stops_before_the_step(ppo: Any, tiny_policy: Any) -> None:
    learner, model = learner_of(ppo, 16)
    batch = make_batch(rollouts_of(tiny_policy), 0, 1.0, torch.device("cpu"))
    orders = learner.orders(5, len(batch))
    batch, _ = learner.evaluate_old(batch, orders[0])
    broken = batch.with_columns(returns_BP=batch.returns_BP + float("nan"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="cycle 5: the loss is nan; no step was taken"):
        learner.learn(broken, orders, 5, [])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_problems_come_again_only_after_all_others() -> None:
    taken = [p.id for cycle in range(8) for p in problem_order(PROBLEMS, cycle, 3, 1)]
    assert len(taken) == 24
    for start in range(0, 24, 8):
        assert len(set(taken[start : start + 8])) == 8
    assert taken[:8] != taken[8:16]
    with pytest.raises(ValueError, match="problems_per_cycle is 9; there are only 8"):
        problem_order(PROBLEMS, 0, 9, 1)


def evaluation(cycle: int, solved: int, proxy: float | None) -> Evaluation:
    return Evaluation(cycle=cycle, correct=(True,) * solved + (False,) * (40 - solved), proxy=proxy)


def test_training_stops_when_the_proxy_rises_and_the_gold_falls() -> None:
    best = evaluation(0, 30, 0.5)
    assert stop_reason([best], 0.01) == ""
    reason = stop_reason([best, evaluation(10, 20, 0.6)], 0.01)  # 10 lost, none won: p = 2^-10
    assert "10 problems are no longer solved and 0 are newly solved (p = 0.00098)" in reason
    assert stop_reason([best, evaluation(10, 20, 0.4)], 0.01) == ""  # the proxy fell too
    assert stop_reason([best, evaluation(10, 25, 0.6)], 0.01) == ""  # p = 1/32
    assert stop_reason([best, evaluation(10, 20, None)], 0.01) == ""
    assert stop_reason([best, evaluation(10, 20, 0.6)], 0.0) == ""  # switched off


@pytest.mark.slow
def test_the_guard_seldom_stops_a_policy_that_stays_as_good() -> None:
    """At p_value 0.05 over 20 evaluations on 200 problems; each problem is solved with probability
    1/2, anew each time. Without a correction, half of such trainings were stopped."""
    draw = random.Random(1)
    stopped = 0
    for _ in range(200):
        evaluations: list[Evaluation] = []
        for cycle in range(20):
            correct = tuple(draw.random() < 0.5 for _ in range(200))
            evaluations.append(Evaluation(cycle=cycle, correct=correct, proxy=float(cycle)))
            if stop_reason(evaluations, 0.05):
                stopped += 1
                break
    assert stopped <= 17  # 5 % of 200, and two standard errors


def test_dead_signals_are_said_in_words() -> None:
    zeros = {field.name: 0.0 for field in fields(CycleMetrics)} | {"engine": None}
    zeros |= {"reward_max": 1.0, "truncation_share": 0.5, "grad_norm": 0.1}
    alive = CycleMetrics(**zeros)
    assert dead_signals(alive) == []
    dead = {"reward_max": 0.0, "truncation_share": 1.0, "grad_norm": 0.0, "skipped_steps": 2.0}
    said = " ".join(dead_signals(replace(alive, **dead)))
    for words in ("every rollout earned 0", "truncated", "gradient is zero", "2 optimizer steps"):
        assert words in said
    gap = EngineGapMetrics(
        engine_gap=0.25, engine_gap_max=1.0, correction_mean=1.0, correction_capped=0.0
    )
    [warning] = dead_signals(replace(alive, engine=gap))
    assert "0.25 nats per token from the trainer's" in warning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "prm"}, "critic is 'prm'; allowed: policy, reward_model"),
        ({"critic": "reward_model"}, "no reward_model is given"),
        ({"clip": 1.5}, "clip is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"imitation_coefficient": 0.1}, "no trajectories are given"),
        ({"cycles": 0}, "cycles is 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(
            **{"policy": "a", "data": "b", "verifier": "countdown", "max_new_tokens": 64} | changes
        )


def test_rollouts_must_be_dealt_evenly() -> None:
    config = PPOConfig(
        policy="a",
        data="b",
        verifier="countdown",
        max_new_tokens=64,
        problems_per_cycle=6,
        samples_per_problem=2,
    )
    assert replace(config, minibatches=3, micro_batch_size=3).micro_steps(2) == 1
    assert replace(config, minibatches=1, micro_batch_size=5).micro_steps(2) == 2
    with pytest.raises(ValueError, match="problems_per_cycle is 6"):
        config.micro_steps(4)


def test_lora_trains_adapters_alone_and_saves_both(ppo: Any) -> None:
    out = ppo.run("lora", ppo.config(lora_rank=2, learning_rate=1e-2))
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    before, after = (load_file(f / "model.safetensors") for f in (ppo.folder / "policy", out))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)  # merged; embeddings untouched
    assert ppo.metrics(out)[0]["kl"] == pytest.approx(0.0, abs=1e-5)
