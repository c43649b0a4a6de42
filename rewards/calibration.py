"""Calibration of a reward model's probabilities on rollouts (Guo et al. 2017, 1706.04599)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

optimize: Any = importlib.import_module("scipy.optimize")  # it has no types
special: Any = importlib.import_module("scipy.special")

EDGE = 1e-6  # scores are kept this far from 0 and 1, where the logit is infinite


def _logits(scores: Sequence[float]) -> Any:
    """logit(score), scores kept within [EDGE, 1 - EDGE]."""
    return special.logit(np.clip(np.asarray(scores, dtype=float), EDGE, 1 - EDGE))


def fit_temperature(
    scores: Sequence[float], correct: Sequence[int], counts: Sequence[int]
) -> float:
    """The temperature T > 0 that maximises the binomial likelihood of `correct[i]` of `counts[i]`
    rollouts under P = sigmoid(logit(score) / T); 1 changes nothing. Searched in [1/100, 100].

    Raises ValueError for no scores, unequal lengths or counts below 1.
    """
    if not len(scores) or not len(scores) == len(correct) == len(counts) or min(counts) < 1:
        raise ValueError("scores, correct and counts need one entry a prefix, and counts 1 or more")
    logits = _logits(scores)
    successes, totals = np.asarray(correct, dtype=float), np.asarray(counts, dtype=float)

    def loss(log_temperature: float) -> float:
        """Nats a rollout."""
        scaled = logits / np.exp(log_temperature)
        terms = successes * special.log_expit(scaled)
        terms += (totals - successes) * special.log_expit(-scaled)
        return -float(terms.sum() / totals.sum())

    bounds = (-np.log(100.0), np.log(100.0))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))
