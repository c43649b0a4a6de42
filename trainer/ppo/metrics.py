"""What is measured of a cycle, and the files it is kept in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from rewards.text_rewards import repetition_penalty
from trainer.ppo.batch import Batch
from trainer.ppo.losses import explained_variance, importance_corrections
from trainer.ppo.update import Learner, Sums
from trainer.rollouts.collect import Rollout


def cycle_metrics(
    learner: Learner, rollouts: Sequence[Rollout], batch: Batch, sums: Sums, entropy: float
) -> dict[str, Any]:
    """Means over all processes; explained variance is this process's own. `reward` is a solution's
    sum, the KL penalty apart; `kl` nats a solution; `entropy` nats a token; `length` tokens. Where
    another engine sampled, `engine_gap`, the mean distance of its log-probabilities from the
    trainer's, nats a token, and the importance corrections that follow."""
    n, mask = float(len(rollouts)), batch.mask_BP.bool()
    totals = [sum(r.rewards) for r in rollouts]
    cap = learner.config.importance_cap
    corrections_BP, gaps_BP = importance_corrections(
        batch.logprobs_BP, batch.engine_BP, batch.mask_BP, cap
    )
    elsewhere = ~batch.engine_BP.isnan()
    local = {
        "n": n,
        "tokens": float(mask.sum()),
        "reward": sum(totals),
        "outcome": sum(r.outcome for r in rollouts),
        "correct": float(sum(r.correct for r in rollouts)),
        "score": sum(r.scores[-1] for r in rollouts if r.scores),
        "kl": float((batch.logprobs_BP - batch.reference_BP).sum()),
        "entropy": entropy,
        "length": float(sum(len(r.response_ids) for r in rollouts)),
        "repetition": -sum(repetition_penalty(r.text) for r in rollouts),
        "truncated": float(sum(r.truncated for r in rollouts)),
        **{name: float(sums[name]) for name in (
            "policy_loss", "value_loss", "imitation_loss", "clipped", "ratio", "grad_norm",
            "steps", "skipped_steps",
        )},
        "trained": float(sums["tokens"]),
        "elsewhere": float(elsewhere.sum()),
        "gap": float(gaps_BP.abs().sum()),
        "correction": float(corrections_BP[elsewhere].sum()),
        "capped": float((gaps_BP.exp() > cap).sum()),
    }  # fmt: skip
    total = dict(zip(local, learner.reduce(list(local.values())), strict=True))
    extremes = torch.tensor(
        [
            min(totals),
            -max(totals),
            -sums["ratio_max"],
            -sums["first_ratio_error"],
            -float(gaps_BP.abs().max()),
        ],
        dtype=torch.float64,
        device=learner.accelerator.device,
    )
    lows = learner.accelerator.gather(extremes[None]).min(0).values.tolist()
    steps, solutions = max(1.0, total["steps"]), total["n"]
    processes = learner.accelerator.num_processes
    metrics: dict[str, Any] = {
        name: total[name] / solutions
        for name in ("reward", "outcome", "correct", "kl", "length", "repetition")
    }
    metrics |= {
        "reward_min": lows[0],
        "reward_max": -lows[1],
        "score": total["score"] / solutions if rollouts[0].scores else None,
        "entropy": total["entropy"] / total["tokens"],
        "truncation_share": total["truncated"] / solutions,
        "policy_loss": total["policy_loss"] / steps * processes,
        "value_loss": total["value_loss"] / steps * processes,
        "imitation_loss": total["imitation_loss"] / steps * processes,
        "clip_fraction": total["clipped"] / total["trained"],
        "ratio_mean": total["ratio"] / total["trained"],
        "ratio_max": -lows[2],
        "first_ratio_error": -lows[3],
        "grad_norm": total["grad_norm"] / steps,
        "skipped_steps": total["skipped_steps"],
        "explained_variance": explained_variance(batch.values_BP[mask], batch.returns_BP[mask]),
        "tokens": total["tokens"],
    }
    if sampled := total["elsewhere"]:
        metrics |= {
            "engine_gap": total["gap"] / sampled,
            "engine_gap_max": -lows[4],
            "correction_mean": total["correction"] / sampled,
            "correction_capped": total["capped"] / sampled,
        }
    return metrics


def completion_rows(
    cycle: int, rollouts: Sequence[Rollout], batch: Batch, count: int
) -> list[dict[str, Any]]:
    """The first `count` rollouts with what each step earned; `kl` is nats a solution."""
    kl_B = (batch.logprobs_BP - batch.reference_BP).sum(1).tolist()
    return [
        {
            "cycle": cycle,
            "problem": rollout.problem_id,
            "text": rollout.text,
            "step_scores": list(rollout.scores),
            "step_rewards": list(rollout.rewards),
            "outcome": rollout.outcome,
            "correct": rollout.correct,
            "truncated": rollout.truncated,
            "kl": kl,
        }
        for rollout, kl in zip(rollouts, kl_B, strict=True)
    ][:count]


class Stopwatch:
    """Seconds by part, as "seconds_<part>"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[f"seconds_{part}"] = time.perf_counter() - started
