"""A router chooses each problem's strategy and budget from a look at the problem.

An arm is a strategy with a budget. For each arm, the router estimates the probability that the
arm's answer is right (logistic) and the FLOPs that the arm costs after the look (linear), both from
the features of the look. It chooses the arm with the largest

    P(right) - multiplier x FLOPs.

With one multiplier for all problems, this is the Lagrangian of the problem "as many right answers
as possible at a given mean of FLOPs". No other choice of arms has a larger expected number of right
answers at the same estimated FLOPs or less (Everett, 1963: generalized Lagrange multipliers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.json_records import read_record
from search.settings import SearchSettings


@dataclass(frozen=True, kw_only=True)
class RouterArm:
    """One strategy with one budget, as it was measured, and the estimates of its outcome.

    `config` holds the values of the strategy's config. `right_weights` (logits) and
    `flops_weights` (FLOPs) have one value per feature. An arm that `continues_look` is a best of N
    that goes on with the look's samples.
    """

    name: str
    budget: int
    strategy: str
    config: Mapping[str, Any]
    settings: SearchSettings
    continues_look: bool
    right_weights: tuple[float, ...]
    right_shift: float
    flops_weights: tuple[float, ...]
    flops_shift: float

    def right(self, features: Sequence[float]) -> float:
        """The estimated probability that the arm's answer is right."""
        z = self.right_shift + _product(self.right_weights, features)
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    def flops(self, features: Sequence[float]) -> float:
        """The estimated FLOPs after the look, at least 0."""
        return max(0.0, self.flops_shift + _product(self.flops_weights, features))


@dataclass(frozen=True, kw_only=True)
class RouterBudget:
    """The multiplier, in right answers per FLOP, at which the mean FLOPs are `budget` percent of
    those of the best fixed arm."""

    budget: int
    multiplier: float


@dataclass(frozen=True, kw_only=True)
class Router:
    """A fitted router, the content of router.json. The first of `arms` is the look itself: its
    answer costs nothing further."""

    features: tuple[str, ...]
    arms: tuple[RouterArm, ...]
    budgets: tuple[RouterBudget, ...]

    def multiplier(self, budget: int) -> float:
        """Raises ValueError for a budget that the router was not fitted for."""
        known = {row.budget: row.multiplier for row in self.budgets}
        if budget not in known:
            raise ValueError(
                f"budgets is {budget}; the router was fitted for {', '.join(map(str, known))} "
                "percent of the FLOPs of its best fixed arm"
            )
        return known[budget]

    def choose(self, features: Sequence[float], multiplier: float) -> int:
        """The index of the chosen arm. The earlier arm wins a tie."""
        net = [arm.right(features) - multiplier * arm.flops(features) for arm in self.arms]
        return max(range(len(net)), key=net.__getitem__)


def _product(weights: Sequence[float], features: Sequence[float]) -> float:
    return math.fsum(w * x for w, x in zip(weights, features, strict=True))


def read_router(path: Path) -> Router:
    """Raises ValueError naming the file if it is missing or holds no router."""
    if not path.is_file():
        raise ValueError(f"router is {str(path)!r}: there is no such file")
    return read_record(Router, path)
