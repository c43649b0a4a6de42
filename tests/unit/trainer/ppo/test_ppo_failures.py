"""What goes wrong in a PPO run is said, and the last checkpoint is good; recorded rollouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data.types import Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from search.scorer import RewardScorer
from trainer.ppo.batch import minibatch_order
from trainer.rollouts.collect import RewardConfig, Rollout
from trainer.rollouts.files import ROLLOUTS, read_rollouts, rollout_rows, share_of
from trainer.training.checkpoints import latest_checkpoint


@pytest.mark.parametrize("poison", [float("nan"), 1e38])
def test_a_loss_that_is_no_number_leaves_a_good_checkpoint(ppo: Any, poison: float) -> None:
    """One reward of the second cycle poisons it; the first cycle's checkpoint is as it was."""
    config = ppo.config(cycles=2, save_every=1, record_rollouts=True, evaluation_problems=0)
    first = ppo.run("first", config)
    rows = [json.loads(line) for line in (first / ROLLOUTS).read_text().splitlines()]
    rows[32]["rewards"][-1] = poison
    path = ppo.folder / "poisoned.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"cycle 1: the loss is (nan|inf); no step was taken. The"):
        ppo.run("out", replace(config, replay=str(path)))
    out = ppo.folder / "out"
    assert not (out / "manifest.json").exists()
    assert ppo.metrics(out) == ppo.metrics(first)[:1]
    checkpoint = latest_checkpoint(out)
    assert checkpoint is not None and checkpoint.name == "checkpoint-1"
    weights = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    assert weights and all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_a_gradient_that_is_no_number_is_said(ppo: Any) -> None:
    config = ppo.config(learning_rate=1e30, warmup_cycles=4, epochs=1, minibatches=1)
    with pytest.raises(ValueError, match=r"the gradient's norm is nan\. The last checkpoint"):
        ppo.run("out", config)
    assert not (ppo.folder / "out" / "manifest.json").exists()


def fails_in_cycle_3(kind: str, monkeypatch: pytest.MonkeyPatch, ppo: Any) -> Callable[[], None]:
    """Break verifier or reward model, by what `kind` says, when cycle 3 asks it; returns what mends
    it again."""
    verifier = VERIFIERS["finishes"]
    score = RewardScorer.score_batch

    class Fails(verifier):
        def verify(self, problem: Problem, solution: str) -> Verdict:
            if latest_checkpoint(ppo.folder / "cut") is not None:
                raise OSError("no disk")
            return super().verify(problem, solution)

    def scores(self: RewardScorer, items: Any) -> Any:
        results = score(self, items)
        if items[0][1].node < 3:
            return results
        if kind == "scorer":
            raise ConnectionError("no server")
        return [replace(result, scores=result.scores[1:]) for result in results]

    if kind == "verifier":
        monkeypatch.setitem(VERIFIERS, "finishes", Fails)
        return lambda: monkeypatch.setitem(VERIFIERS, "finishes", verifier)
    monkeypatch.setattr(RewardScorer, "score_batch", scores)
    return lambda: monkeypatch.setattr(RewardScorer, "score_batch", score)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("verifier", ValueError, "problem countdown-.*: the verifier failed: OSError"),
        ("scorer", ConnectionError, "no server"),
        ("steps", ValueError, r"problem countdown-.*: \d+ process rewards for \d+ steps"),
    ],
)
def test_rewards_that_fail_stop_the_run_and_once_mended_it_ends_the_same(
    ppo: Any, monkeypatch: pytest.MonkeyPatch, kind: str, error: Any, message: str
) -> None:
    config = ppo.config(
        reward_model=str(ppo.folder / "prm"), learning_rate=1e-3, max_new_tokens=8,
        evaluation_problems=0,
    )  # fmt: skip
    rewards = RewardConfig(shape="potential")
    whole = ppo.run("whole", config, rewards)
    mend = fails_in_cycle_3(kind, monkeypatch, ppo)
    with pytest.raises(error, match=message) as raised:
        ppo.run("cut", config, rewards)
    if kind == "scorer":
        assert raised.value.__notes__ == ["cycle 3: the reward model failed on 32 solutions"]
    cut = ppo.folder / "cut"
    checkpoint = latest_checkpoint(cut)
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    mend()
    ppo.run("cut", config, rewards)
    assert ppo.metrics(cut) == ppo.metrics(whole)
    for part in (".", "critic"):
        files = [out / part / "model.safetensors" for out in (cut, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_recorded_rollouts_teach_the_same_in_any_micro_batches(ppo: Any) -> None:
    def config(size: int, **more: Any) -> Any:
        return ppo.config(
            micro_batch_size=size, learning_rate=1e-3, max_new_tokens=12, evaluation_problems=0,
            cycles=2, reward_model=str(ppo.folder / "prm"), critic="reward_model", **more,
        )  # fmt: skip

    first = ppo.run("first", config(16, record_rollouts=True), RewardConfig(shape="step"))
    file = first / ROLLOUTS
    assert {len(rollouts) for rollouts in read_rollouts(file).values()} == {32}
    # The rewards are the file's: no verifier and no shape is asked again.
    runs = [ppo.run(f"replay-{n}", config(n, replay=str(file))) for n in (16, 5, 1)]
    ignored = ("outcome",)
    assert [{k: v for k, v in row.items() if k not in ignored} for row in ppo.metrics(runs[0])] == [
        {k: v for k, v in row.items() if k not in ignored} for row in ppo.metrics(first)
    ]
    assert (runs[0] / "model.safetensors").read_bytes() == (
        first / "model.safetensors"
    ).read_bytes()
    usage = json.loads((runs[0] / "manifest.json").read_text())["usage"]["ledger"]
    assert usage[0]["generated_tokens"] == 0  # nothing was sampled
    for other in runs[1:]:
        for one, two in zip(ppo.metrics(runs[0]), ppo.metrics(other), strict=True):
            for name in ("policy_loss", "value_loss", "grad_norm", "reward"):
                assert two[name] == pytest.approx(one[name], abs=1e-6, rel=3e-6), name
            # A sum over a solution's tokens, as exact for each of them as a loss is.
            assert two["kl"] == pytest.approx(one["kl"], abs=1e-6 * one["length"])
        weights = [load_file(out / "model.safetensors") for out in (runs[0], other)]
        for name, value in weights[0].items():
            assert torch.allclose(value, weights[1][name], atol=1e-5), name
    with pytest.raises(ValueError, match=r"replay holds 0 rollouts of cycle 2; .* 4 x 8"):
        ppo.run("more", replace(config(16, replay=str(file)), cycles=3))


ROLLOUT = Rollout(
    problem_id="p", prompt_ids=(5, 6), response_ids=(7, 8, 9), text="", step_ends=(1, 2),
    scores=(0.5, 0.25), outcome=1.0, correct=True, truncated=False, rewards=(0.25, 1.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response_ids": (), "step_ends": (), "scores": (), "rewards": ()}, "without tokens"),
        ({"scores": (0.5,)}, "2 rewards and 1 process rewards for 2 steps"),
        ({"rewards": (0.5, 1.0, 1.0)}, "3 rewards and 2 process rewards for 2 steps"),
        ({"step_ends": (1, 3)}, "a step ends outside its rollout"),
        ({"problem": 1}, "unexpected keyword"),
    ],
)
def test_a_replayed_file_is_checked_before_anything_is_learned(
    tmp_path: Path, ppo: Any, changes: dict[str, Any], message: str
) -> None:
    rows = rollout_rows(0, [[ROLLOUT] * 32], 8)
    rows[1] |= changes
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=f"rollouts.jsonl, line 2: not a rollout: .*{message}"):
        ppo.run("out", ppo.config(replay=str(path)))


def test_rollouts_are_kept_in_the_problems_order_and_dealt_again(tmp_path: Path) -> None:
    made = [replace(ROLLOUT, problem_id=f"{p}", text=f"{p}{s}") for p in range(4) for s in "ab"]
    parts = [[r for r in made if int(r.problem_id) % 2 == rank] for rank in range(2)]
    rows = rollout_rows(7, parts, 2)
    assert [row["text"] for row in rows] == [r.text for r in made]
    assert rows[0] == {"cycle": 7, **asdict(made[0])}
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_rollouts(path)
    assert read == {7: made}
    for rank in range(2):
        share = share_of(read, 7, problems=4, samples=2, rank=rank, processes=2)
        assert share == parts[rank]


@pytest.mark.parametrize(("problems", "samples", "parts"), [(16, 3, 4), (4, 8, 4), (8, 2, 1)])
def test_minibatches_hold_the_same_rollouts_for_any_number_of_processes(
    problems: int, samples: int, parts: int
) -> None:
    found: list[list[set[tuple[int, int]]]] = []
    for processes in (1, 2, 4):
        of_all: list[set[tuple[int, int]]] = [set() for _ in range(parts)]
        for rank in range(processes):
            rows = problems // processes * samples
            order = minibatch_order(rows, samples, parts, torch.Generator().manual_seed(5))
            assert sorted(order.tolist()) == list(range(rows))
            for part, chunk in zip(of_all, order.chunk(parts), strict=True):
                assert len(chunk) == rows // parts
                part |= {(i // samples * processes + rank, i % samples) for i in chunk.tolist()}
        found.append(of_all)
    assert found[0] == found[1] == found[2]
    other = minibatch_order(problems * samples, samples, parts, torch.Generator().manual_seed(6))
    again = minibatch_order(problems * samples, samples, parts, torch.Generator().manual_seed(5))
    assert parts == 1 or not torch.equal(other, again)
