"""Means over seeds, by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "learner_seeds.py"


@pytest.fixture(scope="module")
def seeds() -> Any:
    spec = importlib.util.spec_from_file_location("learner_seeds", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(seed: int, end: float, difference: float, tokens: int) -> dict[str, Any]:
    curve = [{"sampled_tokens": 0, "value": 0.3}, {"sampled_tokens": tokens, "value": end}]
    learner = {
        "name": "ppo",
        "sampled_tokens": tokens,
        "test": [{"value": 0.1}, {"value": end}],
        "validation": curve,
    }
    change = {"ppo_vs_sft": {"difference": difference}}
    return {"seed": seed, "learners": [learner], "comparisons": change}


def test_intervals_over_seeds(seeds: Any) -> None:
    # 1, 2, 3: standard deviation 1, t with 2 degrees of freedom 4.3027
    mean, low, high = seeds.t_interval([1.0, 2.0, 3.0])
    half = 4.302653 / 3**0.5
    assert (mean, low, high) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-6)
    with pytest.raises(ValueError, match="at least two runs"):
        seeds.t_interval([1.0])


def test_learners_differences_and_curves(seeds: Any) -> None:
    runs = [result(1, 0.4, 0.05, 100), result(2, 0.5, 0.07, 110), result(3, 0.6, 0.09, 120)]
    rows = seeds.tables(runs)
    # 50 +- 4.3027 x 10 / sqrt(3), 7 +- 4.3027 x 2 / sqrt(3)
    assert "| ppo | 100 to 120 | 50.0 [25.2, 74.8] |" in rows
    assert "| ppo_vs_sft | +7.0 [+2.0, +12.0] | +5.0, +7.0, +9.0 |" in rows
    assert "| ppo | 0 | 30.0 [30.0, 30.0] |" in rows
    assert "| ppo | 110 | 50.0 [25.2, 74.8] |" in rows
