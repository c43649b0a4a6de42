"""Detects reward hacking, and cycles from which nothing can be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.measures.statistics import paired_p_value
from trainer.ppo.metrics import CycleMetrics


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of the greedy policy before cycle `cycle`. All evaluations use the same
    validation problems. `correct` says which problems it solved. `proxy` is the reward model's mean
    score of the last steps of its solutions, None without a reward model."""

    cycle: int
    correct: tuple[bool, ...]
    proxy: float | None

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct)


def stop_reason(evaluations: Sequence[Evaluation], p_value: float) -> str:
    """The reason to stop after the last evaluation; empty if there is none. Training stops if,
    compared with the best policy so far, the reward model's mean score is higher, but the policy
    solves significantly fewer problems by an exact one-sided test.

    `p_value` is the probability of a false stop in the whole training, however many evaluations it
    has. After m earlier evaluations, the best of them is one of m that could have been compared
    (Bonferroni), and the test gets the share 1 / (m (m + 1)) of `p_value`; these shares sum to 1.
    """
    if p_value == 0 or len(evaluations) < 2:
        return ""
    *before, last = evaluations
    best = max(before, key=lambda e: e.accuracy)
    if last.proxy is None or best.proxy is None or last.proxy <= best.proxy:
        return ""
    p, fewer, more = paired_p_value(best.correct, last.correct)
    looks = len(before)
    if p * looks >= p_value / (looks * (looks + 1)):
        return ""
    return (
        f"before cycle {last.cycle} the reward model's mean score is {last.proxy:.3f}, above "
        f"{best.proxy:.3f} before cycle {best.cycle}, but {fewer} problems are no longer solved "
        f"and {more} are newly solved (p = {p:.2g}): the policy games the reward"
    )


LARGEST_GAP = 0.1  # nats per token; bfloat16 kernels differ by about 0.01


def dead_signals(metrics: CycleMetrics) -> list[str]:
    """A warning for each sign in a cycle's metrics that nothing can be learned from it."""
    warnings: list[str] = []
    if metrics.reward_min == metrics.reward_max:
        warnings.append(
            f"every rollout earned {metrics.reward_min:g}: advantages come from the critic's "
            "errors alone; choose problems that are neither always nor never solved"
        )
    if metrics.truncation_share == 1.0:
        warnings.append("every rollout was truncated: raise max_new_tokens")
    if metrics.grad_norm == 0.0:
        warnings.append("the gradient is zero")
    if metrics.skipped_steps:
        warnings.append(f"{metrics.skipped_steps:g} optimizer steps were skipped")
    if metrics.engine is not None and metrics.engine.engine_gap > LARGEST_GAP:
        warnings.append(
            f"the log-probabilities of the engine that samples are {metrics.engine.engine_gap:.2f} "
            "nats per token from the trainer's: check that the engine has this policy's weights, "
            "precision and temperature (for a vLLM server: --logprobs-mode processed_logprobs)"
        )
    return warnings
