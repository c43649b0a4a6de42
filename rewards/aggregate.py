"""Combine the scores of a solution's steps (probabilities, in [0, 1]) into one score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def last(step_scores: Sequence[float]) -> float:
    """The last step's score. Raises ValueError when there is no step."""
    return _not_empty(step_scores)[-1]


def minimum(step_scores: Sequence[float]) -> float:
    """The smallest score. Raises ValueError when there is no step."""
    return min(_not_empty(step_scores))


def product(step_scores: Sequence[float]) -> float:
    """The product of all scores. It falls with the number of steps. Raises ValueError when there is
    no step."""
    return math.prod(_not_empty(step_scores))


def mean(step_scores: Sequence[float]) -> float:
    """The arithmetic mean. Raises ValueError when there is no step."""
    return math.fsum(_not_empty(step_scores)) / len(step_scores)


def _not_empty(step_scores: Sequence[float]) -> Sequence[float]:
    if not len(step_scores):
        raise ValueError("step_scores is empty; it must have one score per step, at least one")
    return step_scores


AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": last,
    "min": minimum,
    "product": product,
    "mean": mean,
}
