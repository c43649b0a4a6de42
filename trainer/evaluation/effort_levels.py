"""Effort levels of a bundle, chosen from what a run measured: accuracy by strategy and budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data.settings import did_you_mean
from search.settings import SearchSettings
from search.strategies.by_name import strategy_name
from search.strategies.mcts.config import MCTSConfig
from search.strategies.routed import json_config
from search.strategies.solutions import SolutionsConfig
from search.strategies.thinking import ThinkingConfig
from trainer.evaluation.policies import WEIGHTED_BEST_OF_N
from trainer.evaluation.strategies import read_strategy
from trainer.measures.results import (
    AccuracyRow,
    EvaluationResults,
    StrategyComparison,
    ThinkingRow,
)
from trainer.searching.bundles import EFFORTS, EffortLevel


@dataclass(frozen=True, kw_only=True)
class MeasuredSearch:
    """A search that can be run again as it was measured: its row, config and settings."""

    row: AccuracyRow
    split: str
    config: Any
    settings: SearchSettings
    thinking_tokens: float | None = None

    @property
    def name(self) -> str:
        """As the bundle stage's keys have it: strategy:budget."""
        return f"{self.row.strategy}:{self.row.budget}"

    def level(self, effort: str) -> EffortLevel:
        row = self.row
        return EffortLevel(
            name=effort,
            strategy=strategy_name(self.config),
            config=dataclasses.asdict(self.config),
            settings=dataclasses.asdict(self.settings),
            measured_as=row.strategy,
            budget=row.budget,
            split=self.split,
            problems=row.n,
            accuracy=row.value,
            low=row.low,
            high=row.high,
            generated_tokens=row.generated_tokens,
            thinking_tokens=self.thinking_tokens,
            flops=row.flops,
        )


def searches_of_evaluation(
    results: EvaluationResults, recipe: Mapping[str, Any], policy: str
) -> list[MeasuredSearch]:
    """The searches of `policy` in an evaluation, whose manifest holds `recipe`. What sees the truth
    (pass@N) and controls are left out."""
    settings = json_config(SearchSettings, _fields_of(SearchSettings, recipe))
    mcts = json_config(MCTSConfig, _fields_of(MCTSConfig, recipe))
    thoughts = {(row.policy, row.budget): row for row in results.thinking}
    found: list[MeasuredSearch] = []
    for row in results.accuracy:
        search = _search_of_row(row, settings, mcts)
        if row.policy == policy and search is not None:
            config, chosen = search
            thought = thoughts.get((policy, row.budget)) if row.strategy == "thinking" else None
            found.append(_measured(row, recipe["split"], config, chosen, thought))
    return found


def searches_of_comparison(
    results: StrategyComparison, recipe: Mapping[str, Any], policy: str
) -> list[MeasuredSearch]:
    """As `searches_of_evaluation`, for a comparison of strategies. Routed searches are left out:
    their router is a file of its own."""
    common = json_config(SearchSettings, _fields_of(SearchSettings, recipe))
    strategies = {
        name: read_strategy(name, values, common) for name, values in recipe["strategies"].items()
    }
    found: list[MeasuredSearch] = []
    for row in results.accuracy:
        known = strategies.get(row.strategy)
        config, settings = (
            (SolutionsConfig(budgets=(row.budget,)), common)
            if known is None  # best of N, the reference
            else (replace(known.searches[0], budgets=(row.budget,)), known.settings)
        )
        hidden = known is not None and (known.is_routed or "oracle" in known.name)
        if row.policy == policy and not hidden:
            found.append(_measured(row, results.split, config, settings, None))
    return found


def _measured(
    row: AccuracyRow, split: str, config: Any, settings: SearchSettings, thought: ThinkingRow | None
) -> MeasuredSearch:
    return MeasuredSearch(
        row=row,
        split=split,
        config=config,
        settings=settings,
        thinking_tokens=None if thought is None else thought.thinking_tokens,
    )


def _fields_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _search_of_row(
    row: AccuracyRow, settings: SearchSettings, mcts: MCTSConfig
) -> tuple[Any, SearchSettings] | None:
    """The search that a row of evaluation.json measured (trainer/stages/evaluate.py); None for a
    row of a control or of an oracle."""
    samples = SolutionsConfig(budgets=(row.budget,))
    first = SearchSettings(answer="first", max_new_tokens=settings.max_new_tokens)
    greedy = replace(first, temperature=0.0)
    by_score = replace(settings, answer="score")
    return {
        "greedy": (samples, greedy),
        "sample": (samples, first),
        WEIGHTED_BEST_OF_N: (samples, by_score),
        "best_of_n": (samples, replace(by_score, likelihood_weight=0.0)),
        "majority": (samples, replace(settings, answer="majority")),
        "mcts": (replace(mcts, budgets=(row.budget,)), settings),
        "thinking": (ThinkingConfig(budgets=(row.budget,)), greedy),
    }.get(row.strategy)


def choose_levels(
    searches: Sequence[MeasuredSearch], asked: Mapping[str, str | None]
) -> tuple[EffortLevel, ...]:
    """The three levels. `asked` maps a level to a measured search, as strategy:budget, or to None.

    Levels that are not asked for come from the searches of which no cheaper one is as accurate:
    low is the cheapest, high the most accurate, and medium the one whose FLOPs are nearest to the
    geometric mean of those of low and high. Raises ValueError for a search that was not measured.
    """
    best = _frontier(searches)
    low, high = best[0], best[-1]
    middle = math.sqrt(max(low.row.flops, 1.0) * max(high.row.flops, 1.0))
    inner = best[1:-1] or best[:1]
    chosen = {
        "low": low,
        "medium": min(inner, key=lambda s: abs(math.log(max(s.row.flops, 1.0) / middle))),
        "high": high,
    }
    by_name = {search.name: search for search in searches}
    for effort, name in asked.items():
        if name is not None and name not in by_name:
            raise ValueError(
                f"{effort} is {name!r}, which was not measured; "
                f"{did_you_mean(name, by_name)}measured: {', '.join(by_name)}"
            )
        if name is not None:
            chosen[effort] = by_name[name]
    return tuple(chosen[effort].level(effort) for effort in EFFORTS)


def _frontier(searches: Sequence[MeasuredSearch]) -> list[MeasuredSearch]:
    """The searches that are more accurate than every cheaper one, by ascending FLOPs."""
    found: list[MeasuredSearch] = []
    for search in sorted(searches, key=lambda s: (s.row.flops, -s.row.value)):
        if not found or search.row.value > found[-1].row.value:
            found.append(search)
    return found
