"""Temperature and Platt's form on rollouts whose chances are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewards.models.calibration import fit_temperature
from trainer.measures.recalibration import Recalibration, fit_platt, recalibrations
from trainer.measures.score_quality import ScoredPrefix


def rows(scores: list[float], correct: list[int], count: int) -> list[ScoredPrefix]:
    return [
        ScoredPrefix(problem=str(i), group=str(i), score=s, correct=k, count=count)
        for i, (s, k) in enumerate(zip(scores, correct, strict=True))
    ]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_temperature_that_was_put_in_comes_out() -> None:
    # Success rates sigmoid(logit / 2), exactly: 16 scores at logits -4 to 4, a million rollouts.
    logits = np.linspace(-4, 4, 16)
    scores = [sigmoid(x) for x in logits]
    correct = [round(1e6 * sigmoid(x / 2)) for x in logits]
    counts = [1_000_000] * 16
    assert fit_temperature(scores, correct, counts) == pytest.approx(2.0, rel=1e-3)
    own = [round(1e6 * s) for s in scores]
    assert fit_temperature(scores, own, counts) == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(ValueError, match="there are 1 scores, 2 correct"):
        fit_temperature([0.5], [1, 2], [3])


def test_scale_and_shift_that_were_put_in_come_out() -> None:
    logits = np.linspace(-4, 4, 16)
    correct = [round(1e6 * sigmoid(0.5 * x - 1)) for x in logits]
    found = fit_platt(rows([sigmoid(x) for x in logits], correct, 1_000_000))
    assert (found.scale, found.shift) == pytest.approx((0.5, -1.0), abs=1e-2)
    # A model that is upside down is not turned round: order is kept.
    down = [round(1e6 * sigmoid(-x)) for x in logits]
    assert fit_platt(rows([sigmoid(x) for x in logits], down, 1_000_000)).scale == 0.0
    # All rollouts right: the fit is finite.
    assert math.isfinite(fit_platt(rows([0.5, 0.6], [4, 4], 4)).shift)


def test_recalibrated_scores_by_hand() -> None:
    [half, edge] = Recalibration(form="platt", scale=2.0, shift=-1.0).apply(
        rows([0.5, 1.0], [1, 1], 2)
    )
    assert half.score == pytest.approx(sigmoid(-1.0))
    assert 0.999 < edge.score < 1.0 and edge.correct == 1
    prefixes = rows([0.2, 0.7, 0.9], [1, 2, 3], 4)
    forms = recalibrations(prefixes)
    assert [form.form for form in forms] == ["none", "temperature", "platt"]
    assert forms[0].apply(prefixes) == prefixes
    assert forms[1].shift == 0.0
    # 0.9 (logit log 9) comes true in 3 of 4 (logit log 3): log 9 / log 3 = 2
    _, cooled, _ = recalibrations(rows([0.9], [3_000_000], 4_000_000))
    assert cooled.scale == pytest.approx(0.5, rel=1e-3)
    assert cooled.apply(rows([0.9], [1], 2))[0].score == pytest.approx(0.75, rel=1e-3)
