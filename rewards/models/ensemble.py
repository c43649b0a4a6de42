"""An ensemble of reward models with a pessimistic score: mean minus k standard deviations, clipped
to [0, 1].

Search and training exploit the errors of a reward model. Several models rarely make the same error,
so the score is lower when the members disagree. The source is the uncertainty-weighted optimisation
of Coste et al. (2310.02743). The paper subtracts a multiple of the variance. This file subtracts a
multiple of the standard deviation over the members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data.types import ModelUsage, SteppedSolution
from rewards.base import RewardModel, TextRewardModel

ScoresAndUsage = tuple[list[list[float]], list[ModelUsage]]


def pessimistic(scores: Sequence[float], deviations: float) -> float:
    """mean - deviations x population standard deviation, clipped to [0, 1]. NaN when a score is
    NaN."""
    mean = math.fsum(scores) / len(scores)
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    value = mean - deviations * spread
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def combined(members: Sequence[ScoresAndUsage], deviations: float) -> ScoresAndUsage:
    """Combine the members' scores of the same steps. The usage is the sum of the members' usage."""
    scores = [
        [pessimistic(of_step, deviations) for of_step in zip(*rows, strict=True)]
        for rows in zip(*(scores for scores, _ in members), strict=True)
    ]
    usage = [
        sum(spent, ModelUsage()) for spent in zip(*(usage for _, usage in members), strict=True)
    ]
    return scores, usage


class EnsembleRewardModel:
    """Implements `rewards.base.RewardModel`. Raises ValueError for no members, and for negative
    `deviations`."""

    def __init__(self, members: Sequence[RewardModel], deviations: float) -> None:
        _check(len(members), deviations)
        self.members = tuple(members)
        self.deviations = deviations

    def prefix_flops(self, length: int) -> float:
        return sum(member.prefix_flops(length) for member in self.members)

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> ScoresAndUsage:
        return combined([m.score(sequences, step_ends) for m in self.members], self.deviations)


class TextEnsembleRewardModel:
    """Implements `rewards.base.TextRewardModel`. Raises ValueError for no members, and for negative
    `deviations`."""

    def __init__(self, members: Sequence[TextRewardModel], deviations: float) -> None:
        _check(len(members), deviations)
        self.members = tuple(members)
        self.deviations = deviations

    def score_solutions(self, solutions: Sequence[SteppedSolution]) -> ScoresAndUsage:
        return combined([m.score_solutions(solutions) for m in self.members], self.deviations)


def _check(members: int, deviations: float) -> None:
    if members < 1:
        raise ValueError("members is empty; an ensemble needs at least one reward model")
    if not 0 <= deviations < math.inf:
        raise ValueError(f"deviations is {deviations}; it must be 0 or more")
