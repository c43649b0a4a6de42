"""Temperature scaling: known optima, and the model that applies it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.models.calibration import BIAS, TEMPERATURE, fit_temperature, scaled, write_temperature
from rewards.models.folders import load_reward_model
from rewards.models.prm import process_reward_model
from trainer.models.loading import reward_model_from_policy, save_model

PROBABILITY = st.floats(min_value=1e-6, max_value=1 - 1e-6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_scores_is_found(temperature: float) -> None:
    # Exact shares of rollouts: of 1000 from a step whose truth is sigmoid(logit).
    logits = [-2.0, -0.5, 0.3, 1.0, 2.5]
    scores = [sigmoid(logit * temperature) for logit in logits]
    correct = [1000 * sigmoid(logit) for logit in logits]
    found = fit_temperature(scores, correct, [1000] * 5)
    assert found == pytest.approx(temperature, rel=1e-5)
    assert [scaled(s, found) for s in scores] == pytest.approx([c / 1000 for c in correct])


def test_counts_weigh() -> None:
    # One score: its optimum is logit(0.9) / logit(share); 8 of 12 and 2 of 3 are 10 of 15.
    found = fit_temperature([0.9, 0.9], [8, 2], [12, 3])
    assert found == pytest.approx(math.log(9) / math.log(2), rel=1e-5)
    more = fit_temperature([0.9, 0.9], [8, 0], [12, 3])
    assert more == pytest.approx(math.log(9) / math.log(8 / 7), rel=1e-5)


def test_noise_is_recovered_within_its_error() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=2000)
    correct = generator.binomial(8, 1 / (1 + np.exp(-logits)))
    scores = 1 / (1 + np.exp(-2 * logits))
    found = fit_temperature(list(scores), list(correct), [8] * 2000)
    # Fisher information of 1 / T: the sum of n p (1 - p) logit^2.
    p = 1 / (1 + np.exp(-logits))
    error = 1 / math.sqrt(float(np.sum(8 * p * (1 - p) * (2 * logits) ** 2)))
    assert abs(1 / found - 0.5) < 3 * error < 0.04


def test_certain_scores_and_separable_labels_have_an_answer() -> None:
    assert fit_temperature([0.9, 0.2], [1, 0], [1, 1]) == pytest.approx(0.01, rel=1e-3)
    # Certainty counts as a chance of 1e-12 to be wrong, and three in four are right.
    certain = fit_temperature([0.0, 1.0], [1, 3], [4, 4])
    assert certain == pytest.approx(math.log(1e12) / math.log(3), rel=1e-4)


@given(PROBABILITY, PROBABILITY, st.floats(min_value=0.05, max_value=20))
def test_scaling_is_monotone_and_one_is_identity(p: float, q: float, temperature: float) -> None:
    assert scaled(p, 1.0) == p
    assert (scaled(p, temperature) <= scaled(q, temperature)) or p > q
    assert scaled(0.5, temperature) == 0.5


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([0.5], [1, 1], [1]), "the three numbers must be equal"),
        (([1.5], [1], [1]), "step 0: the score is 1.5"),
        (([0.5, math.nan], [1, 1], [1, 1]), "step 1: the score is nan"),
        (([0.5], [2], [1]), "step 0: the score is 0.5, with 2 correct of 1"),
        (([0.5], [0], [0]), "needs rollouts"),
    ],
)
def test_bad_columns_are_named(columns: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_temperature(*columns)


def test_the_folder_keeps_it_and_the_model_applies_it(tiny_policy: Any, tmp_path: Path) -> None:
    save_model(*tiny_policy, tmp_path / "policy")
    save_model(reward_model_from_policy(str(tmp_path / "policy")), tiny_policy[1], tmp_path / "prm")

    def scores() -> list[float]:
        model = process_reward_model(load_reward_model(str(tmp_path / "prm")), 0)
        return model.score([[3, 4, 5, 6]], [[1, 2, 3]])[0][0]

    before = scores()
    write_temperature(tmp_path / "prm", 1.0)
    assert scores() == before
    write_temperature(tmp_path / "prm", 2.5)
    assert scores() == pytest.approx([scaled(score, 2.5) for score in before], abs=1e-6)
    assert scores() != pytest.approx(before, abs=1e-3)
    write_temperature(tmp_path / "prm", 2.5, bias=1.0)
    odds = [scaled(score, 2.5) / (1 - scaled(score, 2.5)) * math.e for score in before]
    assert scores() == pytest.approx([odd / (1 + odd) for odd in odds], abs=1e-6)
    # Trained on, it is another model.
    again = reward_model_from_policy(str(tmp_path / "prm"))
    assert not hasattr(again.config, TEMPERATURE) and not hasattr(again.config, BIAS)
    config = tmp_path / "prm" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {TEMPERATURE: "hot"}))
    with pytest.raises(ValueError, match="is 'hot'; it must be a number"):
        scores()
    with pytest.raises(ValueError, match="is 0; it must be positive"):
        write_temperature(tmp_path / "prm", 0)
    with pytest.raises(ValueError, match="thinktree_bias is inf; it must be finite"):
        write_temperature(tmp_path / "prm", 1.0, bias=float("inf"))
    with pytest.raises(ValueError, match=r"no config\.json"):
        write_temperature(tmp_path, 1.0)
