"""What requests cost a policy, whatever engine answers them."""

from __future__ import annotations

from collections.abc import Sequence

from data.flops import FlopModel
from data.types import ModelUsage


def sample_usage(flops: FlopModel, prefix_length: int, lengths: Sequence[int]) -> ModelUsage:
    """The cost of n samples of one prefix that have the given lengths in tokens.

    The prefix without its last token goes through the model once. For every sample, the last prefix
    token and all generated tokens but the last one go through the model.
    """
    shared = prefix_length - 1
    generated = sum(lengths)
    spent = flops.forward(0, shared, outputs=1) + sum(
        flops.forward(shared, shared + length) for length in lengths
    )
    return ModelUsage(
        prompt_tokens=shared + len(lengths),
        cached_tokens=shared * (len(lengths) - 1),
        generated_tokens=generated,
        positions=shared + generated,
        sequences=len(lengths),
        flops=spent,
    )


def choice_usage(flops: FlopModel, prefix_length: int) -> ModelUsage:
    """The cost of the probabilities of the next token after one prefix."""
    return ModelUsage(
        prompt_tokens=prefix_length,
        positions=prefix_length,
        sequences=1,
        flops=flops.forward(0, prefix_length),
    )
