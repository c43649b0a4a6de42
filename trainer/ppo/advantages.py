"""Advantages: pure functions of rewards and values. B solutions, P positions; position p of a row
predicts its token p + 1, and `mask_BP` is 1 where that token was generated. A row's generated
positions are contiguous; everything outside them is ignored and comes out as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def gae(
    rewards_BP: Tensor,
    values_BP: Tensor,
    mask_BP: Tensor,
    discount_BP: Tensor,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (1506.02438, equation 16) and the returns A + V.

    delta_p = r_p + discount_p V_(p+1) - V_p, A_p = delta_p + discount_p lambda A_(p+1). After a
    row's last generated token the value is 0: finished and truncated solutions both end there.
    `discount_BP` is what lies between a token and the next: 1 within a step, so that long steps
    are not punished, gamma at a step's end.
    """
    advantages_BP = torch.zeros_like(rewards_BP)
    next_value_B = torch.zeros_like(rewards_BP[:, 0])
    next_advantage_B = torch.zeros_like(next_value_B)
    for p in range(rewards_BP.shape[1] - 1, -1, -1):
        discount_B, mask_B = discount_BP[:, p], mask_BP[:, p]
        delta_B = rewards_BP[:, p] + discount_B * next_value_B - values_BP[:, p]
        advantage_B = (delta_B + discount_B * gae_lambda * next_advantage_B) * mask_B
        advantages_BP[:, p] = advantage_B
        # Where nothing was generated the last value and advantage are those of the row's end: 0.
        next_value_B = values_BP[:, p] * mask_B
        next_advantage_B = advantage_B
    return advantages_BP, (advantages_BP + values_BP) * mask_BP


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over generated tokens, which add up over micro-batches and processes."""

    count: float
    total: float
    squares: float

    @property
    def mean(self) -> float:
        return self.total / max(1.0, self.count)

    @property
    def variance(self) -> float:
        """Of the population, never below 0."""
        return max(0.0, self.squares / max(1.0, self.count) - self.mean**2)


def moments(values_BP: Tensor, mask_BP: Tensor) -> Moments:
    kept = values_BP[mask_BP.bool()].double()
    return Moments(
        count=float(kept.numel()), total=float(kept.sum()), squares=float((kept**2).sum())
    )


def whiten(values_BP: Tensor, mask_BP: Tensor, over: Moments) -> Tensor:
    """(A - mean) / sqrt(variance + 1e-8), mean and variance over the global batch."""
    return (values_BP - over.mean) / (over.variance + 1e-8) ** 0.5 * mask_BP


def kl_penalties(logprobs_BP: Tensor, reference_BP: Tensor, mask_BP: Tensor) -> Tensor:
    """log pi - log pi_ref of each sampled token, nats: an unbiased estimate of the KL divergence
    when summed over tokens drawn from pi (Schulman's k1). Rewards are lowered by a multiple."""
    return (logprobs_BP - reference_BP) * mask_BP


@dataclass(slots=True, kw_only=True)
class KLController:
    """The KL coefficient: fixed, or moved towards a target (Ziegler et al. 1909.08593, section
    2.2): beta <- beta (1 + error x horizon share), error = clip(KL / target - 1, -0.2, 0.2)."""

    coefficient: float
    target: float = 0.0  # nats a solution; 0: fixed
    rate: float = 0.1

    def update(self, kl: float) -> None:
        if self.target > 0:
            error = min(0.2, max(-0.2, kl / self.target - 1.0))
            self.coefficient *= 1.0 + self.rate * error
