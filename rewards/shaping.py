"""Process rewards as pure functions: from a reward model's word on every step to a reward a step.

A solution has S steps; `scores[i]` is Phi(s_i), the reward model's P(correct) after step i, and the
outcome is the verifier's word on the whole. What a shape returns is added, times a weight, to the
outcome, which stands at the last step.

What the theory says: potential-based shaping leaves the optimal policy as it is (Ng, Harada and
Russell 1999, theorem 1), and learning with it equals learning without it from values that start at
Phi (Wiewiora 2003): with gamma = lambda = 1 it changes nothing but the baseline. The other shapes
change what is optimal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

Shape = Callable[[Sequence[float], float], list[float]]


def outcome_only(scores: Sequence[float], discount: float) -> list[float]:
    """No process reward."""
    del discount
    return [0.0] * len(scores)


def potential(scores: Sequence[float], discount: float) -> list[float]:
    """F = discount x Phi(s_i) - Phi(s_(i-1)), one discount a step (Ng et al. 1999, equation 2).

    Phi is 0 at the prompt and where the solution ends, finished or truncated: it must be for the
    policy to stay optimal, and with Phi(prompt) = 0 undiscounted rewards sum to 0.
    """
    after = [*scores[:-1], 0.0]
    before = [0.0, *scores[:-1]]
    return [discount * b - a for a, b in zip(before, after, strict=True)]


def step_reward(scores: Sequence[float], discount: float) -> list[float]:
    """Each step's own score, summed over steps as Math-Shepherd's PPO does (2312.08935, section
    3.5): more steps earn more."""
    del discount
    return list(scores)


def min_form(scores: Sequence[float], discount: float) -> list[float]:
    """Rewards whose undiscounted sum from step i on is the smallest score from i on (PURE,
    2504.15275, section 3: a chain is as good as its worst step). r_i = m_i - m_(i+1) with
    m_i = min(scores[i:]), m_S = 0. Raises ValueError for a discount other than 1."""
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


def step_rewards(
    scores: Sequence[float], outcome: float, *, shape: str, weight: float, discount: float = 1.0
) -> list[float]:
    """The reward of each of S steps: weight x process reward, and the outcome at the last step.

    Raises ValueError for no steps, and for a score that is no number in [0, 1].
    """
    if not scores:
        raise ValueError("a solution without steps has no rewards")
    for score in scores:
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"a process reward is {score}; it must be in [0, 1]")
    rewards = [weight * value for value in SHAPES[shape](scores, discount)]
    rewards[-1] += outcome
    return rewards
