"""One multiplier chooses the arms: against brute force, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainer.measures.routing import choose_arms, chosen, multiplier_for


@pytest.mark.parametrize("seed", range(8))
def test_no_other_choice_is_better_at_these_flops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random((5, 3))
    flops = np.sort(rng.random((5, 3)), axis=1) * 1e9
    for budget in rng.uniform(flops.min(axis=1).mean(), flops.max(axis=1).mean(), 5):
        multiplier = multiplier_for(right, flops, budget)
        arms = choose_arms(right, flops, multiplier)
        spent, expected = chosen(flops, arms).sum(), chosen(right, arms).sum()
        assert spent <= 5 * budget * (1 + 1e-12)
        # A smaller multiplier would exceed the budget.
        before = np.nextafter(multiplier, 0.0)
        if multiplier:
            assert chosen(flops, choose_arms(right, flops, before)).mean() > budget
        for other in itertools.product(range(3), repeat=5):
            if chosen(flops, np.array(other)).sum() <= spent:
                assert chosen(right, np.array(other)).sum() <= expected + 1e-12


def test_budgets_by_hand() -> None:
    # Two easy problems, on which the dear arm gains 0.1, and a hard one, on which it gains 0.6.
    right = [[0.8, 0.9], [0.2, 0.8], [0.8, 0.9]]
    flops = [[1.0, 11.0]] * 3
    # (1 + 11 + 1) / 3 = 4.33: the hard problem alone gets the dear arm. 0.1 / 10 must lose.
    assert choose_arms(right, flops, multiplier_for(right, flops, 4.4)).tolist() == [0, 1, 0]
    assert multiplier_for(right, flops, 4.4) == pytest.approx(0.01)
    assert multiplier_for(right, flops, 4.3) == pytest.approx(0.06)
    assert multiplier_for(right, flops, 11.0) == 0.0
    with pytest.raises(ValueError, match="the cheapest arms cost 1"):
        multiplier_for(right, flops, 0.9)


def test_the_earlier_arm_wins_a_tie() -> None:
    assert choose_arms([[0.5, 0.5]], [[1.0, 1.0]], 0.1).tolist() == [0]
