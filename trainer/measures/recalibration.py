"""Recalibrated scores: P = sigmoid(scale x logit(score) + shift), fitted on rollouts.

- temperature: scale 1/T without a shift (1706.04599); it cannot correct a wrong mean;
- platt: scale and shift (Platt 1999), for models that need more than a temperature.
Both keep the order of scores, so they change neither best of N nor AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize, special

from rewards.models.calibration import fit_temperature
from trainer.measures.score_quality import ScoredPrefix

EDGE = 1e-6  # scores are kept this far from 0 and 1, where the logit is infinite


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    form: str
    scale: float = 1.0
    shift: float = 0.0

    def apply(self, prefixes: Sequence[ScoredPrefix]) -> list[ScoredPrefix]:
        if self.form == "none":
            return list(prefixes)
        scores = special.expit(self.scale * _logits(prefixes) + self.shift)
        return [replace(p, score=float(s)) for p, s in zip(prefixes, scores, strict=True)]


def recalibrations(prefixes: Sequence[ScoredPrefix]) -> tuple[Recalibration, ...]:
    """Three recalibrations fitted on `prefixes`: unchanged scores, temperature, scale and shift."""
    temperature = fit_temperature(
        [p.score for p in prefixes], [p.correct for p in prefixes], [p.count for p in prefixes]
    )
    return (
        Recalibration(form="none"),
        Recalibration(form="temperature", scale=1 / temperature),
        fit_platt(prefixes),
    )


def fit_platt(prefixes: Sequence[ScoredPrefix]) -> Recalibration:
    """`fit_scale_and_shift` of scores."""
    scale, shift = fit_scale_and_shift(
        _logits(prefixes), [p.correct for p in prefixes], [p.count for p in prefixes]
    )
    return Recalibration(form="platt", scale=scale, shift=shift)


def fit_scale_and_shift(
    margins: Sequence[float], correct_counts: Sequence[float], counts: Sequence[float]
) -> tuple[float, float]:
    """Maximum likelihood on the rollouts' counts. Platt's half success and half failure are added,
    so that a maximum exists even if all rollouts have the same outcome. The scale is at least 0, so
    the order of scores is kept."""
    logits = np.array(margins, dtype=float)
    correct = np.array(correct_counts, dtype=float)
    wrong = np.array(counts, dtype=float) - correct
    prior = 0.5 / len(correct)

    def loss(parameters: Any) -> tuple[float, Any]:
        """The loss in nats per rollout, and its gradient."""
        z = parameters[0] * logits + parameters[1]
        terms = (correct + prior) * special.log_expit(z) + (wrong + prior) * special.log_expit(-z)
        slope = (correct + prior) - (correct + wrong + 2 * prior) * special.expit(z)
        total = (correct + wrong).sum()
        return -terms.sum() / total, -np.array([(slope * logits).sum(), slope.sum()]) / total

    found: Any = optimize.minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)]
    )
    scale, shift = (float(value) for value in found.x)
    return scale, shift


def _logits(prefixes: Sequence[ScoredPrefix]) -> Any:
    return special.logit(np.clip([p.score for p in prefixes], EDGE, 1 - EDGE))
