"""Aggregates of step scores."""

from __future__ import annotations

import pytest

from rewards.aggregate import AGGREGATES


@pytest.mark.parametrize(
    ("name", "expected"),
    [("last", 0.75), ("min", 0.25), ("product", 0.09375), ("mean", 0.5)],
)
def test_by_hand(name: str, expected: float) -> None:
    # 0.5 * 0.25 * 0.75 = 0.09375; (0.5 + 0.25 + 0.75) / 3 = 0.5: all exact in binary.
    assert AGGREGATES[name]([0.5, 0.25, 0.75]) == expected
    assert AGGREGATES[name]((0.125,)) == 0.125


def test_names() -> None:
    assert set(AGGREGATES) == {"last", "min", "product", "mean"}


@pytest.mark.parametrize("name", AGGREGATES)
def test_empty(name: str) -> None:
    with pytest.raises(ValueError, match="step_scores is empty"):
        AGGREGATES[name]([])
