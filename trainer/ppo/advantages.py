"""Advantages are pure functions of rewards and values.

Shapes: B solutions, P positions. Position p of a row predicts token p + 1 of the row. `mask_BP` is
1 if that token was generated, else 0. The generated positions of a row are contiguous. The
functions ignore all other positions, and return 0 there.
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

    delta_p = r_p + discount_p V_(p+1) - V_p, A_p = delta_p + discount_p lambda A_(p+1). The value
    after a row's last generated token is 0, for finished and for truncated solutions. `discount_BP`
    is the discount between a token and the next one. It is gamma at the end of a step, and 1 within
    a step, so that long steps get no penalty.
    """
    advantages_BP = torch.zeros_like(rewards_BP)
    next_value_B = torch.zeros_like(rewards_BP[:, 0])
    next_advantage_B = torch.zeros_like(next_value_B)
    for p in range(rewards_BP.shape[1] - 1, -1, -1):
        discount_B, mask_B = discount_BP[:, p], mask_BP[:, p]
        delta_B = rewards_BP[:, p] + discount_B * next_value_B - values_BP[:, p]
        advantage_B = (delta_B + discount_B * gae_lambda * next_advantage_B) * mask_B
        advantages_BP[:, p] = advantage_B
        # The mask makes the value 0 after the row's last generated token; the advantage is 0 there.
        next_value_B = values_BP[:, p] * mask_B
        next_advantage_B = advantage_B
    return advantages_BP, (advantages_BP + values_BP) * mask_BP


def mean_of_others(returns_B: Tensor, samples: int) -> Tensor:
    """For each solution, the mean return of the other `samples` - 1 of its problem. Solutions of a
    problem follow one another."""
    groups_GS = returns_B.view(-1, samples)
    return ((groups_GS.sum(1, keepdim=True) - groups_GS) / (samples - 1)).flatten()


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over generated tokens. The sums of micro-batches and processes can be added."""

    count: float
    total: float
    squares: float

    @property
    def mean(self) -> float:
        return self.total / max(1.0, self.count)

    @property
    def variance(self) -> float:
        """The population variance, never below 0."""
        return max(0.0, self.squares / max(1.0, self.count) - self.mean**2)


def moments(values_BP: Tensor, mask_BP: Tensor) -> Moments:
    kept = values_BP[mask_BP.bool()].double()
    return Moments(
        count=float(kept.numel()), total=float(kept.sum()), squares=float((kept**2).sum())
    )


def whiten(values_BP: Tensor, mask_BP: Tensor, over: Moments) -> Tensor:
    """(A - mean) / sqrt(variance + 1e-8), with mean and variance over the global batch."""
    return (values_BP - over.mean) / (over.variance + 1e-8) ** 0.5 * mask_BP


def kl_penalties(logprobs_BP: Tensor, reference_BP: Tensor, mask_BP: Tensor) -> Tensor:
    """log pi - log pi_ref of each sampled token, in nats. The sum over tokens sampled from pi is an
    unbiased estimate of the KL divergence (Schulman's k1). The caller subtracts a multiple of it
    from the rewards."""
    return (logprobs_BP - reference_BP) * mask_BP


@dataclass(slots=True, kw_only=True)
class KLController:
    """The KL coefficient. It is fixed, or adapts to a target KL (Ziegler et al. 1909.08593, section
    2.2): beta <- beta (1 + rate x error), error = clip(KL / target - 1, -0.2, 0.2)."""

    coefficient: float
    target: float = 0.0  # nats per solution; 0: the coefficient is fixed
    rate: float = 0.1

    def update(self, kl: float) -> None:
        if self.target > 0:
            error = min(0.2, max(-0.2, kl / self.target - 1.0))
            self.coefficient *= 1.0 + self.rate * error
