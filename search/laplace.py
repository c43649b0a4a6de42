"""Laplace's rule for a share of trials: add one success and one failure to the observed ones."""

from __future__ import annotations

import math


def laplace_error(share: float, count: float) -> float:
    """The standard error of a share of n = `count` trials: sqrt(p(1-p)/n) with p = (k+1)/(n+2).

    k = share x n is the number of successes. The error is never 0, because a result such as 0
    correct of 2 does not prove that the probability is 0.
    """
    p = (share * count + 1) / (count + 2)
    return math.sqrt(p * (1 - p) / count)
