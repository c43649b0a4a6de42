"""Fits a router (search/router.py) on what every arm of a comparison did on validation problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from data.settings import suggestion
from search.router import Router, RouterArm, RouterBudget
from search.strategies.look import FEATURES
from trainer.evaluation.outcomes import Outcomes
from trainer.measures.routing import multiplier_for


def fit_router(
    outcomes: Outcomes,
    *,
    strategies: Sequence[str],
    budgets: Sequence[int],
    regularization: float,
    kept_prefixes: bool,
) -> Router:
    """A router between the look and the choosable arms of `strategies` (none: all). The look comes
    first, and the others follow by their mean FLOPs, so that the cheaper arm wins a tie.

    Raises ValueError for an unknown strategy, and for a budget that the look alone exceeds.
    """
    names = {arm.name for arm in outcomes.arms if arm.choosable and not arm.is_look}
    for name in strategies:
        if name not in names:
            raise ValueError(
                f"strategies names {name!r}, which the comparison does not have; "
                f"{suggestion(name, sorted(names))}"
            )
    features = np.array([row.features for row in outcomes.problems])
    right = np.array([row.correct for row in outcomes.problems])
    further = further_flops(outcomes, kept_prefixes=kept_prefixes)
    kept = [
        i
        for i, arm in enumerate(outcomes.arms)
        if arm.is_look or (arm.choosable and (not strategies or arm.name in strategies))
    ]
    kept.sort(key=lambda i: (not outcomes.arms[i].is_look, further[:, i].mean()))
    arms = tuple(
        _fit_arm(outcomes, i, features, right[:, i], further[:, i], regularization) for i in kept
    )
    router = Router(features=FEATURES, arms=arms, budgets=())
    right_PA, flops_PA = estimates(router, outcomes)
    look = full_flops(outcomes, kept_prefixes=kept_prefixes)[:, 0].mean()
    best = best_fixed(outcomes, kept_prefixes=kept_prefixes)
    most = full_flops(outcomes, kept_prefixes=kept_prefixes)[:, best].mean()
    rows: list[RouterBudget] = []
    for budget in budgets:
        left = budget / 100 * most - look
        if left < 0:
            raise ValueError(
                f"budgets holds {budget} percent, but the look alone costs "
                f"{math.ceil(100 * look / most)} percent of the best fixed arm's FLOPs"
            )
        multiplier = multiplier_for(right_PA, flops_PA, left)
        rows.append(RouterBudget(budget=budget, multiplier=multiplier))
    return Router(features=FEATURES, arms=arms, budgets=tuple(rows))


def full_flops(outcomes: Outcomes, *, kept_prefixes: bool) -> Any:
    """FLOPs of every arm run alone, of shape problems x arms."""
    return np.array(
        [r.flops_with_kept_prefixes if kept_prefixes else r.flops for r in outcomes.problems]
    )


def further_flops(outcomes: Outcomes, *, kept_prefixes: bool) -> Any:
    """FLOPs of every arm after the look, of shape problems x arms."""
    flops = full_flops(outcomes, kept_prefixes=kept_prefixes)
    shared = np.array(
        [
            row.shared_flops_with_kept_prefixes if kept_prefixes else row.shared_flops
            for row in outcomes.problems
        ]
    )
    for i, arm in enumerate(outcomes.arms):
        if arm.is_look:
            flops[:, i] = 0.0
        elif arm.continues_look:
            flops[:, i] -= shared
    return flops


def best_fixed(outcomes: Outcomes, *, kept_prefixes: bool) -> int:
    """The index of the arm that is right most often; the cheaper arm wins a tie."""
    return best_arm(outcomes, range(len(outcomes.arms)), kept_prefixes=kept_prefixes)


def best_arm(outcomes: Outcomes, among: Sequence[int], *, kept_prefixes: bool) -> int:
    right = np.array([row.correct for row in outcomes.problems]).sum(axis=0)
    flops = full_flops(outcomes, kept_prefixes=kept_prefixes).mean(axis=0)
    return max(among, key=lambda i: (right[i], -flops[i]))


def estimates(router: Router, outcomes: Outcomes) -> tuple[Any, Any]:
    """The router's estimates: P(right) and FLOPs after the look, both of shape problems x arms of
    the router."""
    rows = [row.features for row in outcomes.problems]
    return (
        np.array([[arm.right(features) for arm in router.arms] for features in rows]),
        np.array([[arm.flops(features) for arm in router.arms] for features in rows]),
    )


def _fit_arm(
    outcomes: Outcomes, index: int, features_PF: Any, right_P: Any, flops_P: Any, strength: float
) -> RouterArm:
    arm = outcomes.arms[index]
    right_weights, right_shift = _logistic(features_PF, right_P, strength)
    flops_weights, flops_shift = _linear(features_PF, flops_P)
    return RouterArm(
        name=arm.name,
        budget=arm.budget,
        strategy=arm.strategy,
        config=arm.config,
        settings=arm.settings,
        continues_look=arm.continues_look,
        right_weights=right_weights,
        right_shift=right_shift,
        flops_weights=flops_weights,
        flops_shift=flops_shift,
    )


def _logistic(features_PF: Any, right_P: Any, strength: float) -> tuple[tuple[float, ...], float]:
    """Weights and shift of the log-odds. Where all outcomes are equal: the log-odds of their share
    with half a success and half a failure added."""
    n, successes = len(right_P), int(right_P.sum())
    if successes in (0, n):
        return (0.0,) * features_PF.shape[1], math.log((successes + 0.5) / (n - successes + 0.5))
    scaler = StandardScaler().fit(features_PF)
    model: Any = LogisticRegression(C=1 / strength, max_iter=1000)
    model.fit(scaler.transform(features_PF), right_P)
    return _unscaled(model.coef_[0], float(model.intercept_[0]), scaler)


def _linear(features_PF: Any, flops_P: Any) -> tuple[tuple[float, ...], float]:
    scaler = StandardScaler().fit(features_PF)
    model = LinearRegression().fit(scaler.transform(features_PF), flops_P)
    return _unscaled(model.coef_, float(model.intercept_), scaler)


def _unscaled(weights_F: Any, shift: float, scaler: Any) -> tuple[tuple[float, ...], float]:
    """Weights and shift for features that are not standardised."""
    weights = weights_F / scaler.scale_
    return tuple(float(w) for w in weights), float(shift - weights @ scaler.mean_)
