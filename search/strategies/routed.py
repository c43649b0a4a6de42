"""A routed search looks at a problem, and a fitted router then chooses how to go on.

Easy problems end with the look's answer; harder ones get the strategy and the budget that the
router expects to be worth their FLOPs (search/router.py). scripts/fit_router.py fits the router.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from search.base import SearchResult, Session, Strategy
from search.router import RouterArm, read_router
from search.settings import SearchSettings, check_budgets
from search.strategies.look import FEATURES, LookConfig, features_of, search_look
from search.strategies.solutions import SolutionsConfig, search_solutions

LIMITS = ("max_generated_tokens", "max_flops", "max_seconds")


@dataclass(frozen=True, kw_only=True)
class RoutedConfig:
    """A look at the problem, then the arm that the router chooses. The look and the arm run with
    the settings that they were measured with; of the recipe's settings, only the limits count."""

    router: str
    """File router.json of the stage fit_router."""
    budgets: tuple[int, ...] = (50,)
    """Mean FLOPs, percent of those of the router's best fixed arm: one that it was fitted for."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)


async def search_routed(
    session: Session,
    config: RoutedConfig,
    strategy_of: Callable[[str, Mapping[str, Any]], Strategy],
) -> SearchResult:
    """`strategy_of` gives the strategy with this name and these values of its config. The tree is
    that of the chosen arm; the usage includes the look.

    Raises ValueError for a router that is missing, has other features, or was not fitted for the
    budget.
    """
    router, [budget] = read_router(Path(config.router)), config.budgets
    multiplier = router.multiplier(budget)
    if router.features != FEATURES:
        raise ValueError(
            f"{config.router}: the router's features are {', '.join(router.features)}, not "
            f"{', '.join(FEATURES)}: fit it again"
        )
    given, arm = session.settings, router.arms[0]
    session.settings = _within_limits(arm.settings, given)
    result = await search_look(session, json_config(LookConfig, arm.config))
    chosen = router.choose(features_of(result.nodes, session.final_answer), multiplier)
    if chosen > 0:
        arm = router.arms[chosen]
        session.settings = _within_limits(arm.settings, given)
        result = await _go_on(session, arm, result, strategy_of)
    # There is one budget, so its answer cost what the search cost.
    snapshot = replace(result.snapshots[-1], budget=budget, usage=session.usage)
    return replace(result, strategy="routed", snapshots=(snapshot,))


async def _go_on(
    session: Session,
    arm: RouterArm,
    look: SearchResult,
    strategy_of: Callable[[str, Mapping[str, Any]], Strategy],
) -> SearchResult:
    if arm.continues_look:
        config = json_config(SolutionsConfig, arm.config)
        return await search_solutions(session, config, begun=look.nodes)
    # The arm grows a tree of its own, in which the look is a cost of the root. It must not stop for
    # a solution that its tree does not have.
    session.best_score = 0.0
    session.node_usage.clear()
    session.node_usage[0] = session.usage
    return await strategy_of(arm.strategy, arm.config)(session)


def json_config(kind: type, values: Mapping[str, Any]) -> Any:
    """A config from the values that a JSON file holds: its lists are tuples."""
    return kind(
        **{k: tuple(cast("list[Any]", v)) if isinstance(v, list) else v for k, v in values.items()}
    )


def _within_limits(own: SearchSettings, given: SearchSettings) -> SearchSettings:
    """An arm's own settings with the lower of both limits; 0 is no limit."""
    lower = {
        name: min((x for x in (getattr(own, name), getattr(given, name)) if x), default=0)
        for name in LIMITS
    }
    return replace(own, **lower)
