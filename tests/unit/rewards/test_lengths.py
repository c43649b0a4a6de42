"""The reward for solutions that are not too long."""

from __future__ import annotations

import pytest

from rewards.lengths import check_length, length_factor


def test_length_factor_by_hand() -> None:
    # 1/2 at the target, 0.01 a token around it, never outside [0, 1]
    assert length_factor(100, 100, 0.01) == 0.5
    assert length_factor(80, 100, 0.01) == pytest.approx(0.7)
    assert length_factor(120, 100, 0.01) == pytest.approx(0.3)
    assert length_factor(10, 100, 0.01) == 1.0
    assert length_factor(151, 100, 0.01) == 0.0


def test_a_length_reward_that_makes_no_sense_is_refused() -> None:
    check_length(0, 0.005)
    with pytest.raises(ValueError, match="length_target is -1"):
        check_length(-1, 0.005)
    for penalty in (0.0, float("nan")):
        with pytest.raises(ValueError, match="length_penalty is"):
            check_length(100, penalty)
