"""Process rewards as pure functions: they turn a reward model's scores into one reward per step.

A solution has S steps. `scores[i]` is Phi(s_i), the reward model's P(correct) after step i. The
outcome is the verifier's reward for the whole solution, and it is added at the last step. A shape
returns S process rewards, which are multiplied by a weight and added. In PPO, `make_batch`
(trainer/ppo/batch.py) puts the reward of a step on the step's last token.

Potential-based shaping does not change the optimal policy (Ng, Harada and Russell 1999, theorem 1).
Learning with it equals learning without it from values that start at Phi (Wiewiora 2003). With
gamma = lambda = 1, it changes only the baseline. The other shapes change the optimal policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

Shape = Callable[[Sequence[float], float], list[float]]


def outcome_only(scores: Sequence[float], discount: float) -> list[float]:
    """No process reward: all values are 0."""
    del discount
    return [0.0] * len(scores)


def potential(scores: Sequence[float], discount: float) -> list[float]:
    """F = discount x Phi(s_i) - Phi(s_(i-1)), with one discount per step (Ng et al. 1999,
    equation 2).

    Phi is 0 at the prompt and at the end of the solution, whether it is finished or truncated. Phi
    must be 0 at the end so that the optimal policy does not change. With Phi(prompt) = 0, the
    rewards without discount sum to 0.
    """
    after = [*scores[:-1], 0.0]
    before = [0.0, *scores[:-1]]
    return [discount * b - a for a, b in zip(before, after, strict=True)]


def step_reward(scores: Sequence[float], discount: float) -> list[float]:
    """The reward of each step is its score, as in Math-Shepherd's PPO (2312.08935, section 3.5).
    The sum of these rewards grows with the number of steps."""
    del discount
    return list(scores)


def min_form(scores: Sequence[float], discount: float) -> list[float]:
    """Rewards whose sum from step i on is the smallest score from step i on (PURE, 2504.15275,
    section 3: a chain is as good as its worst step).

    r_i = m_i - m_(i+1), with m_i = min(scores[i:]) and m_S = 0. Raises ValueError for a discount
    other than 1.
    """
    if discount != 1:
        raise ValueError(f"min_form is defined for a discount of 1, got {discount}")
    smallest = [min(scores[i:]) for i in range(len(scores))] + [0.0]
    return [a - b for a, b in itertools.pairwise(smallest)]


SHAPES: dict[str, Shape] = {
    "outcome": outcome_only,
    "potential": potential,
    "step": step_reward,
    "min_form": min_form,
}


# Shapes that may also reward the steps of a truncated solution, as their sum pays nothing for it.
FOR_TRUNCATED = ("potential",)


def step_rewards(
    scores: Sequence[float],
    outcome: float,
    *,
    shape: str,
    weight: float,
    finished: bool = True,
    discount: float = 1.0,
) -> list[float]:
    """The rewards of the S steps: weight x process reward, plus the outcome at the last step.

    A truncated solution (`finished` is false) gets no process reward from `step` and `min_form`:
    the scores of its first steps would pay for never ending. `potential` pays it nothing in sum.

    Raises ValueError when there are no steps and for a score that is not in [0, 1].
    """
    if not scores:
        raise ValueError("a solution without steps has no rewards")
    for score in scores:
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"a process reward is {score}; it must be in [0, 1]")
    process = SHAPES[shape](scores, discount)
    paid = finished or shape in FOR_TRUNCATED
    rewards = [weight * value if paid else 0.0 for value in process]
    rewards[-1] += outcome
    return rewards
