"""PPO's losses are pure functions. Each loss is a sum over tokens, divided by a count that the
caller gives. So any division of a batch into micro-batches gives the same sum.
trainer/ppo/advantages.py explains the shapes."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(
    logprobs_BP: Tensor,
    old_logprobs_BP: Tensor,
    advantages_BP: Tensor,
    mask_BP: Tensor,
    clip: tuple[float, float],
    count: float,
) -> tuple[Tensor, Tensor]:
    """- min(ratio A, clip(ratio, 1 - low, 1 + high) A) (1707.06347, equation 7; with a higher bound
    of its own, DAPO 2503.14476, equation 10), summed over tokens and divided by `count`. `clip` is
    (low, high). Also returns the ratios of shape (B, P), which are 1 outside the mask."""
    # The mask is applied before exp, because values outside it could overflow, and 0 x inf is NaN.
    ratio_BP = torch.exp((logprobs_BP - old_logprobs_BP) * mask_BP)
    low, high = clip
    clipped_BP = ratio_BP.clamp(1.0 - low, 1.0 + high)
    gain_BP = torch.minimum(ratio_BP * advantages_BP, clipped_BP * advantages_BP)
    return -(gain_BP * mask_BP).sum() / count, ratio_BP.detach()


def importance_corrections(
    logprobs_BP: Tensor, engine_BP: Tensor, mask_BP: Tensor, cap: float
) -> tuple[Tensor, Tensor]:
    """The weights min(exp(trainer's - engine's log-probability), cap) of tokens that another engine
    sampled with slightly different probabilities (truncated importance sampling; Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training"). `engine_BP` is NaN
    for tokens that the trainer's model sampled. For these tokens and outside the mask the weight is
    1. Also returns the gaps, trainer's - engine's log-probability, in nats; they are 0 there."""
    known_BP = mask_BP.bool() & ~engine_BP.isnan()
    gaps_BP = torch.where(known_BP, logprobs_BP - engine_BP, 0.0)
    return torch.exp(gaps_BP).clamp(max=cap), gaps_BP


def value_loss(
    values_BP: Tensor,
    old_values_BP: Tensor,
    returns_BP: Tensor,
    mask_BP: Tensor,
    clip: float,
    count: float,
) -> Tensor:
    """1/2 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2), summed over tokens and
    divided by `count`. This is the value clipping of PPO's reference implementation. `clip` 0: no
    clipping."""
    errors_BP = (values_BP - returns_BP) ** 2
    if clip > 0:
        near_BP = old_values_BP + (values_BP - old_values_BP).clamp(-clip, clip)
        errors_BP = torch.maximum(errors_BP, (near_BP - returns_BP) ** 2)
    return 0.5 * (errors_BP * mask_BP).sum() / count


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(R - V) / Var(R); 0 if the returns do not vary."""
    variance = float(returns.double().var(unbiased=False)) if returns.numel() else 0.0
    if variance == 0.0:
        return 0.0
    return 1.0 - float((returns - values).double().var(unbiased=False)) / variance
