"""Laplace's rule for a share of trials: one success and one failure are added to those seen."""

from __future__ import annotations

import math


def laplace_error(share: float, count: float) -> float:
    """Standard error of a share of `count` trials, sqrt(p(1-p)/n) with p = (k+1)/(n+2): never 0,
    for 0 of 2 correct is no proof of anything."""
    p = (share * count + 1) / (count + 2)
    return math.sqrt(p * (1 - p) / count)
