"""Search strategies measured side by side: their growth, and best of N at equal FLOPs."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from data.renamed_keys import refuse_renamed_keys
from data.settings import check_values, suggestion
from data.types import Problem, Usage
from search.base import SearchResult
from search.settings import SearchSettings, check_budgets
from search.strategies.by_name import entry
from search.strategies.routed import RoutedConfig
from trainer.evaluation.policies import accuracy_row, compare_accuracies, groups_of
from trainer.measures.results import AccuracyRow, Comparison, Growth, Match
from trainer.measures.scaling import slope_per_doubling
from trainer.measures.statistics import adjust_holm, mean_estimate, paired_p_value
from trainer.searching.workbench import Workbench, correct_at, ends_of, paths_of


@dataclass(frozen=True, kw_only=True)
class ComparedStrategy:
    """One strategy with its settings; `searches` are its runs, each with its budgets."""

    name: str
    searches: tuple[Any, ...]
    settings: SearchSettings
    budgets: tuple[int, ...]

    @property
    def is_routed(self) -> bool:
        return isinstance(self.searches[0], RoutedConfig)


def read_strategy(name: str, values: Mapping[str, Any], common: SearchSettings) -> ComparedStrategy:
    """Raises ValueError naming the strategy for an unknown or ill-typed key, or a bad value."""
    fields = dict(values)
    try:
        known = entry(str(fields.pop("strategy", "")))
        rerun = fields.pop("rerun", False)
        own = {f.name for f in dataclasses.fields(known.config)}
        shared = {f.name for f in dataclasses.fields(SearchSettings)}
        refuse_renamed_keys(fields, (known.config, SearchSettings))
        for key in fields:
            if key not in own | shared:
                raise ValueError(f"unknown key {key!r}; {suggestion(key, sorted(own | shared))}")
        for kind in (known.config, SearchSettings):
            hints = {key: [hint] for key, hint in get_type_hints(kind).items()}
            check_values({k: v for k, v in fields.items() if k in hints}, hints)
        budgets = tuple(fields.pop("budgets", ()))
        check_budgets(budgets, nested=True)
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError("a strategy's name names files: letters, digits, - and _ only")
        sees_truth = fields.get("use_verifier") or "oracle" in (
            fields.get("guidance"), fields.get("answer"),
        )  # fmt: skip
        if sees_truth and "oracle" not in name:
            raise ValueError("it sees the truth, so its name must hold 'oracle'")
        config = {key: value for key, value in fields.items() if key in own}
        searches = [(b,) for b in budgets] if rerun else [budgets]
        return ComparedStrategy(
            name=name,
            searches=tuple(known.config(**config, budgets=b) for b in searches),
            settings=replace(common, **{k: v for k, v in fields.items() if k in shared}),
            budgets=budgets,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"strategy {name!r}: {error}") from error


def fine_grid(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets, and further values of N up to the largest at distances of at most 4 % (or 1).
    Some N then costs nearly as much as a strategy."""
    grid, n = set(budgets), 1
    while n < budgets[-1]:
        grid.add(n)
        n = max(n + 1, int(1.04 * n))
    return tuple(sorted(grid))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """By budget: the accuracy row, and for each problem whether it was correct and what it cost."""

    rows: dict[int, AccuracyRow]
    correct: dict[int, list[bool]]
    usage: dict[int, list[Usage]]


class StrategyBench:
    """Runs strategies on the same problems."""

    def __init__(
        self, workbench: Workbench, problems: Sequence[Problem], folder: Path, policy: str
    ) -> None:
        self.workbench = workbench
        self.problems = problems
        self.folder = folder
        self.policy = policy
        self.ends = ends_of([])
        self.paths = paths_of([])

    def run(self, strategy: ComparedStrategy) -> Measured:
        rows: dict[int, AccuracyRow] = {}
        correct: dict[int, list[bool]] = {}
        usage: dict[int, list[Usage]] = {}
        for search in strategy.searches:
            results: list[SearchResult] = self.workbench.search(
                self.problems,
                search,
                strategy.settings,
                folder=self.folder,
                name=f"{strategy.name}_{search.budgets[-1]}",
                policy_name=self.policy,
            )
            self.ends += ends_of(results)
            self.paths += paths_of(results)
            for budget in search.budgets:
                rows[budget] = accuracy_row(
                    self.workbench, self.policy, strategy.name, results, budget
                )
                correct[budget] = correct_at(self.workbench, results, budget)
                usage[budget] = [result.at(budget).usage for result in results]
        return Measured(rows=rows, correct=correct, usage=usage)


def at_equal_flops(
    measured: Measured,
    reference: Measured,
    problems: Sequence[Problem],
    *,
    kept_prefixes: bool = False,
) -> dict[int, Comparison]:
    """Each budget of a strategy against the reference's N nearest in FLOPs: those of an engine that
    keeps prefixes, or that computes them again."""

    def flops(row: AccuracyRow) -> float:
        return row.flops_with_kept_prefixes if kept_prefixes else row.flops

    found: dict[int, Comparison] = {}
    for budget, row in measured.rows.items():
        n = min(reference.rows, key=lambda n: abs(flops(reference.rows[n]) - flops(row)))
        share = flops(reference.rows[n]) / max(flops(row), 1.0)
        found[budget] = compare_accuracies(
            measured.correct[budget],
            reference.correct[n],
            f"against best of {n} ({share:.2f} of the FLOPs)",
            problems,
        )
    return found


def growth_of(name: str, measured: Measured, problems: Sequence[Problem]) -> Growth:
    """Growth, paired over problems. The slope is that over log2(budget); 0 for one budget."""
    budgets = sorted(measured.correct)
    first, last = measured.correct[budgets[0]], measured.correct[budgets[-1]]
    difference = [float(a) - float(b) for a, b in zip(last, first, strict=True)]
    groups = groups_of(problems)
    slope = mean_estimate([0.0] * len(problems), groups)
    if len(budgets) > 1:
        slope = slope_per_doubling(budgets, [measured.correct[b] for b in budgets], groups)
    drops = [
        paired_p_value(measured.correct[a], measured.correct[b], groups)[0]
        for a, b in itertools.pairwise(budgets)
    ]
    return Growth(
        strategy=name,
        budgets=tuple(budgets),
        last_minus_first=mean_estimate(difference, groups),
        slope=slope,
        adjacent_drops=tuple(adjust_holm(drops)),
    )


def match(
    name: str,
    measured: Measured,
    reference: Measured,
    target: int,
    margin: float,
    problems: Sequence[Problem],
) -> Match:
    for budget in sorted(measured.rows, key=lambda b: measured.rows[b].flops):
        c = compare_accuracies(measured.correct[budget], reference.correct[target], "", problems)
        if c.low >= -margin:
            ratio = measured.rows[budget].flops / max(reference.rows[target].flops, 1.0)
            return Match(strategy=name, budget=budget, flops_ratio=ratio)
    return Match(strategy=name, budget=None, flops_ratio=None)
