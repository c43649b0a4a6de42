"""Choosing one arm per problem: as many right answers as possible at a given mean of FLOPs.

Legend: P problems, A arms. The multiplier turns FLOPs into right answers (search/router.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

HALVINGS = 200


def choose_arms(right_PA: Any, flops_PA: Any, multiplier: float) -> Any:
    """The index of the arm with the largest right - multiplier x FLOPs per problem, of shape P. The
    earlier arm wins a tie."""
    return np.argmax(np.asarray(right_PA) - multiplier * np.asarray(flops_PA), axis=1)


def chosen(values_PA: Any, arms_P: Any) -> Any:
    """The value of each problem's arm, of shape P."""
    return np.take_along_axis(np.asarray(values_PA), np.asarray(arms_P)[:, None], axis=1)[:, 0]


def multiplier_for(right_PA: Any, flops_PA: Any, mean_flops: float) -> float:
    """The smallest multiplier at which the chosen arms' FLOPs have a mean of at most `mean_flops`.

    The mean falls as the multiplier grows, so bisection finds it, down to the last bit. Raises
    ValueError if even the cheapest arm of every problem costs more.
    """
    right, flops = np.asarray(right_PA, dtype=float), np.asarray(flops_PA, dtype=float)

    def spent(multiplier: float) -> float:
        return float(chosen(flops, choose_arms(right, flops, multiplier)).mean())

    least = float(flops.min(axis=1).mean())
    if least > mean_flops:
        raise ValueError(
            f"a mean of {mean_flops:.4g} FLOPs is too small: the cheapest arms cost {least:.4g}"
        )
    if spent(0.0) <= mean_flops:
        return 0.0
    low, high = 0.0, 1.0 / max(mean_flops, 1.0)
    while spent(high) > mean_flops:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > mean_flops else (low, middle)
    return high
