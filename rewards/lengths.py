"""A reward for solutions that are not too long."""

from __future__ import annotations


def length_factor(tokens: int, target: int, penalty: float) -> float:
    """The factor on the outcome of a solution with this many tokens: clip(1/2 + penalty x (target -
    tokens), 0, 1) (L1-Max, 2503.04697, equation 2, with delta 1/2). So a correct solution of
    `target` tokens earns a half, and every token less or more changes that by `penalty`."""
    return min(1.0, max(0.0, 0.5 + penalty * (target - tokens)))


def check_length(target: int, penalty: float) -> None:
    """Raises ValueError for a target below 0 and for a penalty that is not above 0."""
    if target < 0:
        raise ValueError(f"length_target is {target}; it must not be negative")
    if not penalty > 0:
        raise ValueError(f"length_penalty is {penalty}; it must be above 0")
