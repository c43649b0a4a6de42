"""Temperature scaling of a reward model's probabilities (Guo et al. 1706.04599, section 4.2).

A model has one temperature T. A probability p becomes sigmoid(logit(p) / T). This is monotone, so
rankings stay the same, and T = 1 changes nothing. The paper uses single labels. Here, a step has
`count` rollouts, and the likelihood is that of `correct` successes among them.

A model may also have a bias b (Platt 1999): sigmoid(logit(p) / T + b). This keeps the order too.
Training on pairs needs it, because it does not determine the level of the scores.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEMPERATURE = "thinktree_temperature"  # the key in a model's config.json
BIAS = "thinktree_bias"
LOWEST, HIGHEST = 0.01, 100.0
SMALLEST = 1e-12  # scores are clipped to this distance from 0 and 1, where the logit is infinite


def fit_temperature(
    scores: Sequence[float], correct: Sequence[float], counts: Sequence[float]
) -> float:
    """The temperature with the highest likelihood on held-out steps, in [0.01, 100].

    `scores[i]` is the model's probability for step i at T = 1, in [0, 1]. `correct[i]` of its
    `counts[i]` rollouts were correct. A step with one hard label has the count 1. The likelihood is
    concave in 1 / T, so there is one optimum. When every score is on the right side, the optimum is
    at an end of the range. Raises ValueError for columns of different lengths, when there are no
    rollouts, and for values out of range.
    """
    if not len(scores) == len(correct) == len(counts):
        raise ValueError(
            f"there are {len(scores)} scores, {len(correct)} correct and {len(counts)} counts; "
            "the three numbers must be equal"
        )
    for i, (score, right, count) in enumerate(zip(scores, correct, counts, strict=True)):
        if not (0 <= score <= 1 and 0 <= right <= count and math.isfinite(count)):
            raise ValueError(
                f"step {i}: the score is {score}, with {right} correct of {count}; a score must be "
                "in [0, 1], and the number correct in [0, count]"
            )
    if not sum(counts) > 0:
        raise ValueError("counts add up to 0; fitting a temperature needs rollouts")
    clipped_N = np.clip(np.asarray(scores, dtype=float), SMALLEST, 1 - SMALLEST)
    logits_N = np.log(clipped_N) - np.log1p(-clipped_N)
    right_N = np.asarray(correct, dtype=float)
    wrong_N = np.asarray(counts, dtype=float) - right_N

    def loss(log_temperature: float) -> float:
        scaled_N = logits_N / math.exp(log_temperature)
        # -log sigmoid(x) = log(1 + exp(-x)), without overflow.
        return float(
            np.sum(right_N * np.logaddexp(0, -scaled_N) + wrong_N * np.logaddexp(0, scaled_N))
        )

    optimize: Any = importlib.import_module("scipy.optimize")  # this import takes half a second
    found = optimize.minimize_scalar(
        loss,
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return math.exp(float(found.x))


def scaled(score: float, temperature: float) -> float:
    """sigmoid(logit(score) / temperature), in [0, 1]. At temperature 1 this is the score itself.
    Raises ValueError for a temperature that is not positive."""
    check_temperature(temperature)
    if temperature == 1.0 or score in (0.0, 1.0):
        return score
    exponent = (math.log1p(-score) - math.log(score)) / temperature
    return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0


def temperature_of(config: Any) -> float:
    """The temperature in a model's config, or 1 when the config has none. Raises ValueError for a
    temperature that is not a positive number."""
    temperature = getattr(config, TEMPERATURE, 1.0)
    check_temperature(temperature)
    return float(temperature)


def bias_of(config: Any) -> float:
    """The bias in a model's config, or 0 when the config has none. Raises ValueError for a bias
    that is not a finite number."""
    bias = getattr(config, BIAS, 0.0)
    check_bias(bias)
    return float(bias)


def write_temperature(folder: str | Path, temperature: float, bias: float = 0.0) -> None:
    """Write the temperature and the bias to the `config.json` of a reward model's folder.

    The file is replaced by a rename, so it is never half written. Raises ValueError for a
    temperature that is not positive, for a bias that is not finite, and for a folder without
    config.json.
    """
    check_temperature(temperature)
    check_bias(bias)
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} has no config.json, so it is not the folder of a model")
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {TEMPERATURE: temperature, BIAS: bias}
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def check_temperature(temperature: Any) -> None:
    """Raises ValueError for a temperature that is not a positive finite number."""
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise ValueError(f"{TEMPERATURE} is {temperature!r}; it must be a number")
    if not 0 < temperature < math.inf:
        raise ValueError(f"{TEMPERATURE} is {temperature}; it must be positive")


def check_bias(bias: Any) -> None:
    """Raises ValueError for a bias that is not a finite number."""
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise ValueError(f"{BIAS} is {bias!r}; it must be a number")
    if not math.isfinite(bias):
        raise ValueError(f"{BIAS} is {bias}; it must be finite")
