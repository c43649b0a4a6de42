"""Process rewards by hand, and what shaping does to the optimal policies of small trees."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rewards.shaping import min_form, outcome_only, potential, step_reward, step_rewards

SCORES = [0.5, 0.75, 0.25, 0.5]


def test_shapes_by_hand() -> None:
    assert outcome_only(SCORES, 1.0) == [0, 0, 0, 0]
    assert step_reward(SCORES, 1.0) == SCORES
    # Phi: 0 at the prompt, 0 at the end: 0.5 - 0, 0.75 - 0.5, 0.25 - 0.75, 0 - 0.25
    assert potential(SCORES, 1.0) == [0.5, 0.25, -0.5, -0.25]
    # 0.5 x 0.5 - 0, 0.5 x 0.75 - 0.5, 0.5 x 0.25 - 0.75, 0 - 0.25
    assert potential(SCORES, 0.5) == [0.25, -0.125, -0.625, -0.25]
    # smallest from each step on: 0.25, 0.25, 0.25, 0.5
    assert min_form(SCORES, 1.0) == [0.0, 0.0, -0.25, 0.5]
    assert potential([0.7], 1.0) == [0.0] and min_form([0.7], 1.0) == [0.7]


def test_sums_from_each_step_on() -> None:
    shaped = min_form(SCORES, 1.0)
    for i in range(len(SCORES)):
        assert sum(shaped[i:]) == min(SCORES[i:])
        # without a discount, what potentials add from step i on is - Phi before it
        before = SCORES[i - 1] if i else 0.0
        assert sum(potential(SCORES, 1.0)[i:]) == pytest.approx(-before)


def test_the_outcome_stands_at_the_last_step() -> None:
    rewards = step_rewards(SCORES, 1.0, shape="potential", weight=0.5)
    assert rewards == [0.25, 0.125, -0.25, 1 - 0.125]
    assert step_rewards(SCORES, 1.0, shape="outcome", weight=9.0) == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="a process reward is nan"):
        step_rewards([0.5, float("nan")], 1.0, shape="step", weight=1.0)
    with pytest.raises(ValueError, match="without steps"):
        step_rewards([], 1.0, shape="step", weight=1.0)
    with pytest.raises(ValueError, match="discount of 1"):
        step_rewards([0.5], 1.0, shape="min_form", weight=1.0, discount=0.9)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_potentials_leave_the_optimal_policy_and_other_shapes_need_not(discount: float) -> None:
    """Trees of depth 3 with 3 actions a state and random outcomes: a policy is a path. Ranked by
    discounted return, paths keep their order under random potentials."""
    generator = np.random.default_rng(0)
    changed = {"step": 0, "min_form": 0}
    for _ in range(50):
        phi = {
            path: float(generator.random())
            for depth in (1, 2, 3)
            for path in itertools.product(range(3), repeat=depth)
        }
        outcome = {path: float(generator.random()) for path in phi if len(path) == 3}

        def value(path: tuple[int, ...], shape: str, phi: dict = phi, out: dict = outcome) -> float:
            scores = [phi[path[: i + 1]] for i in range(3)]
            gamma = 1.0 if shape == "min_form" else discount
            rewards = step_rewards(scores, out[path], shape=shape, weight=3.0, discount=gamma)
            return sum(gamma**i * reward for i, reward in enumerate(rewards))

        best = max(outcome, key=lambda path: value(path, "outcome"))
        assert max(outcome, key=lambda path: round(value(path, "potential"), 12)) == best
        for shape in changed:
            changed[shape] += max(outcome, key=lambda path: value(path, shape)) != best
    assert min(changed.values()) > 10


def test_a_truncated_solution_gets_no_process_reward() -> None:
    """Nine good steps without an end are worth less than a finished solution."""
    scores = [0.9] * 9
    for shape in ("step", "min_form"):
        assert step_rewards(scores, 0.0, shape=shape, weight=1.0, finished=False) == [0.0] * 9
    paid = step_rewards(scores, 0.0, shape="potential", weight=1.0, finished=False)
    assert paid == step_rewards(scores, 0.0, shape="potential", weight=1.0)
    assert sum(paid) == pytest.approx(0.0)
    # The outcome of a truncated solution stays.
    assert step_rewards(scores, -0.5, shape="step", weight=1.0, finished=False)[-1] == -0.5
