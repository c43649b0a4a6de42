"""The registry of all strategies by name. A new strategy needs one entry here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from search.base import SearchResult, Session, Strategy
from search.strategies.beam import BeamConfig, DVTSConfig, search_beam, search_dvts
from search.strategies.look import LookConfig, search_look
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.strategies.particles import ParticleConfig, search_particles
from search.strategies.revision import RevisionConfig, search_revision
from search.strategies.routed import RoutedConfig, json_config, search_routed
from search.strategies.solutions import SolutionsConfig, search_solutions
from search.strategies.thinking import ThinkingConfig, search_thinking
from search.strategies.without_replacement import (
    WithoutReplacementConfig,
    search_without_replacement,
)


@dataclass(frozen=True, kw_only=True)
class StrategyEntry:
    """One strategy. `granularity` says whether it chooses among steps or among whole solutions.
    `budget` is the unit of `budgets`. A strategy with `values_only_choose` needs values only to
    choose an answer, so `answer_guidance` takes the place of `guidance`."""

    config: type
    search: Callable[..., Any]
    granularity: str
    budget: str
    values_only_choose: bool = False


async def _search_routed(session: Session, config: RoutedConfig) -> SearchResult:
    return await search_routed(session, config, _strategy_of)


STRATEGIES: dict[str, StrategyEntry] = {
    "solutions": StrategyEntry(
        config=SolutionsConfig,
        search=search_solutions,
        granularity="solution",
        budget="samples",
        values_only_choose=True,
    ),
    "without_replacement": StrategyEntry(
        config=WithoutReplacementConfig,
        search=search_without_replacement,
        granularity="solution",
        budget="distinct samples",
        values_only_choose=True,
    ),
    "beam": StrategyEntry(
        config=BeamConfig, search=search_beam, granularity="step", budget="beams"
    ),
    "dvts": StrategyEntry(
        config=DVTSConfig, search=search_dvts, granularity="step", budget="samples per round"
    ),
    "mcts": StrategyEntry(
        config=MCTSConfig, search=search_mcts, granularity="step", budget="simulations"
    ),
    "particles": StrategyEntry(
        config=ParticleConfig, search=search_particles, granularity="step", budget="particles"
    ),
    "revision": StrategyEntry(
        config=RevisionConfig, search=search_revision, granularity="solution", budget="attempts"
    ),
    "thinking": StrategyEntry(
        config=ThinkingConfig,
        search=search_thinking,
        granularity="solution",
        budget="tokens of thought",
        values_only_choose=True,
    ),
    "look": StrategyEntry(
        config=LookConfig,
        search=search_look,
        granularity="solution",
        budget="samples",
        values_only_choose=True,
    ),
    "routed": StrategyEntry(
        config=RoutedConfig,
        search=_search_routed,
        granularity="solution",
        budget="percent of the best fixed arm's FLOPs",
    ),
}


def entry(name: str) -> StrategyEntry:
    """The entry of a strategy. Raises ValueError for an unknown name; the message lists all
    names."""
    if name not in STRATEGIES:
        raise ValueError(f"strategy is {name!r}; allowed: {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def bind(config: Any) -> Strategy:
    """The strategy for the type of `config`, with this config. It starts once per problem.

    Raises ValueError when no strategy takes a config of this type.
    """
    return partial(STRATEGIES[strategy_name(config)].search, config=config)


def strategy_name(config: Any) -> str:
    """The name of the strategy for the type of `config`. Raises ValueError when there is none."""
    for name, known in STRATEGIES.items():
        if isinstance(config, known.config):
            return name
    raise ValueError(f"no strategy takes a {type(config).__name__}")


def _strategy_of(name: str, values: Mapping[str, Any]) -> Strategy:
    """The strategy with this name, and with these values of its config as JSON has them."""
    return bind(json_config(entry(name).config, values))
