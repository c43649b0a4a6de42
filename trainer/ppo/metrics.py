"""The metrics of one PPO cycle, and the rows of the files that keep them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rewards.text_rewards import repetition_penalty
from trainer.ppo.batch import PPOBatch
from trainer.ppo.filtering import FilterMetrics
from trainer.ppo.losses import explained_variance, importance_corrections
from trainer.ppo.step_values import StepValueMetrics
from trainer.ppo.update import Learner, UpdateSums
from trainer.rollouts.collect import Rollout


@dataclass(frozen=True, kw_only=True)
class EngineGapMetrics:
    """The distance between the log-probabilities of the sampling engine and of the trainer, in nats
    per token (`engine_gap` is the mean, `engine_gap_max` the maximum); and the importance
    corrections that follow from it."""

    engine_gap: float
    engine_gap_max: float
    correction_mean: float
    correction_capped: float  # share of the tokens


@dataclass(frozen=True, kw_only=True)
class CycleMetrics:
    """The metrics of one cycle: means over the solutions or the tokens of all processes.

    `reward` is the sum of a solution's rewards, without the KL penalty. `kl` is in nats per
    solution that is learnt from, `entropy` in nats per token, `length` in tokens. `score` is the
    reward model's score of the last step, None without a reward model. `explained_variance` covers
    only the tokens of the main process. `engine` is None if the trainer's model sampled, and
    `filtering` without online filtering; with it, all others are means over the problems that were
    kept. `step_values` is None if the critic gives the values."""

    reward: float
    outcome: float
    correct: float
    kl: float
    length: float
    repetition: float
    reward_min: float
    reward_max: float
    score: float | None
    entropy: float
    truncation_share: float
    policy_loss: float
    value_loss: float
    imitation_loss: float
    clip_fraction: float
    ratio_mean: float
    ratio_max: float
    first_ratio_error: float
    grad_norm: float
    skipped_steps: float
    explained_variance: float
    tokens: float
    engine: EngineGapMetrics | None = None
    filtering: FilterMetrics | None = None
    step_values: StepValueMetrics | None = None


@dataclass(frozen=True, kw_only=True)
class CycleRecord:
    """The log entry of one cycle. `seconds` holds the duration of each part."""

    cycle: int
    metrics: CycleMetrics
    seconds: dict[str, float]
    learning_rate: float
    kl_coefficient: float
    warnings: list[str]

    def as_row(self) -> dict[str, Any]:
        """The line of metrics.jsonl: one flat mapping. The metrics of parts that the run does not
        have are left out."""
        row = asdict(self.metrics)
        parts = [row.pop(name) or {} for name in ("engine", "filtering", "step_values")]
        return {
            **row,
            **{name: value for part in parts for name, value in part.items()},
            **self.seconds,
            "cycle": self.cycle,
            "learning_rate": self.learning_rate,
            "kl_coefficient": self.kl_coefficient,
            "warnings": self.warnings,
        }


@dataclass(frozen=True, kw_only=True)
class _Totals:
    """Sums over solutions, tokens and optimizer steps. The sums of several processes can be
    added."""

    solutions: float
    learnt: float  # solutions that are not masked
    tokens: float
    reward: float
    outcome: float
    correct: float
    score: float
    kl: float
    entropy: float
    length: float
    repetition: float
    truncated: float
    policy_loss: float
    value_loss: float
    imitation_loss: float
    clipped: float
    ratio: float
    grad_norm: float
    steps: float
    skipped_steps: float
    trained: float  # tokens, counted once per epoch
    engine_tokens: float  # tokens that another engine sampled
    engine_gap: float
    correction: float
    capped: float


def cycle_metrics(
    learner: Learner, rollouts: Sequence[Rollout], batch: PPOBatch, sums: UpdateSums, entropy: float
) -> CycleMetrics:
    """The metrics over all processes. `entropy` is the sum over this process's tokens, in nats.
    Every process must call this function."""
    corrections_BP, gaps_BP = importance_corrections(
        batch.logprobs_BP, batch.engine_BP, batch.mask_BP, learner.config.importance_cap
    )
    local = _local_totals(learner, rollouts, batch, sums, entropy, corrections_BP, gaps_BP)
    total = _Totals(
        **dict(zip(asdict(local), learner.reduce(list(asdict(local).values())), strict=True))
    )
    rewards = [sum(rollout.rewards) for rollout in rollouts]
    [reward_min] = _over_processes(learner, [min(rewards)]).min(0).values.tolist()
    largest = [max(rewards), sums.ratio_max, sums.first_ratio_error or 0.0, gaps_BP.abs().max()]
    reward_max, ratio_max, first_ratio_error, engine_gap_max = (
        _over_processes(learner, [float(value) for value in largest]).max(0).values.tolist()
    )
    mask, solutions, steps = batch.mask_BP.bool(), total.solutions, max(1.0, total.steps)
    processes = learner.accelerator.num_processes
    return CycleMetrics(
        reward=total.reward / solutions,
        outcome=total.outcome / solutions,
        correct=total.correct / solutions,
        kl=total.kl / max(1.0, total.learnt),
        length=total.length / solutions,
        repetition=total.repetition / solutions,
        reward_min=reward_min,
        reward_max=reward_max,
        score=total.score / solutions if rollouts[0].scores else None,
        entropy=total.entropy / max(1.0, total.tokens),
        truncation_share=total.truncated / solutions,
        policy_loss=total.policy_loss / steps * processes,
        value_loss=total.value_loss / steps * processes,
        imitation_loss=total.imitation_loss / steps * processes,
        clip_fraction=total.clipped / max(1.0, total.trained),
        ratio_mean=total.ratio / max(1.0, total.trained),
        ratio_max=ratio_max,
        first_ratio_error=first_ratio_error,
        grad_norm=total.grad_norm / steps,
        skipped_steps=total.skipped_steps,
        explained_variance=explained_variance(batch.values_BP[mask], batch.returns_BP[mask]),
        tokens=total.tokens,
        engine=_engine_gap(total, engine_gap_max),
    )


def _local_totals(
    learner: Learner,
    rollouts: Sequence[Rollout],
    batch: PPOBatch,
    sums: UpdateSums,
    entropy: float,
    corrections_BP: Tensor,
    gaps_BP: Tensor,
) -> _Totals:
    """The sums of this process alone."""
    by_engine_BP = ~batch.engine_BP.isnan()
    return _Totals(
        solutions=float(len(rollouts)),
        learnt=float(batch.mask_BP.any(1).sum()),
        tokens=float(batch.mask_BP.bool().sum()),
        reward=sum(sum(r.rewards) for r in rollouts),
        outcome=sum(r.outcome for r in rollouts),
        correct=float(sum(r.correct for r in rollouts)),
        score=sum(r.scores[-1] for r in rollouts if r.scores),
        kl=float((batch.logprobs_BP - batch.reference_BP).sum()),
        entropy=entropy,
        length=float(sum(len(r.response_ids) for r in rollouts)),
        repetition=-sum(repetition_penalty(r.text) for r in rollouts),
        truncated=float(sum(r.truncated for r in rollouts)),
        policy_loss=sums.policy_loss,
        value_loss=sums.value_loss,
        imitation_loss=sums.imitation_loss,
        clipped=sums.clipped,
        ratio=sums.ratio,
        grad_norm=sums.grad_norm,
        steps=sums.steps,
        skipped_steps=sums.skipped_steps,
        trained=sums.tokens,
        engine_tokens=float(by_engine_BP.sum()),
        engine_gap=float(gaps_BP.abs().sum()),
        correction=float(corrections_BP[by_engine_BP].sum()),
        capped=float((gaps_BP.exp() > learner.config.importance_cap).sum()),
    )


def _engine_gap(total: _Totals, largest: float) -> EngineGapMetrics | None:
    if not total.engine_tokens:
        return None
    return EngineGapMetrics(
        engine_gap=total.engine_gap / total.engine_tokens,
        engine_gap_max=largest,
        correction_mean=total.correction / total.engine_tokens,
        correction_capped=total.capped / total.engine_tokens,
    )


def _over_processes(learner: Learner, values: Sequence[float]) -> Tensor:
    """The values of every process, one row per process."""
    device = learner.accelerator.device
    row = torch.tensor([list(values)], dtype=torch.float64, device=device)
    return learner.accelerator.gather(row)


def completion_rows(
    cycle: int, rollouts: Sequence[Rollout], batch: PPOBatch, count: int
) -> list[dict[str, Any]]:
    """Rows of the first `count` rollouts with each step's reward. `kl` is in nats per solution."""
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
    """Measures the seconds of each part of a cycle, as "seconds_<part>"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[f"seconds_{part}"] = time.perf_counter() - started
