"""What every arm of a comparison did on every problem: the rows that a router is fitted on.

An arm is a strategy with a budget. The comparison must hold a strategy `look` with one budget
(search/strategies/look.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from data.types import Usage
from search.settings import SearchSettings
from search.strategies.by_name import strategy_name
from search.strategies.look import LookConfig, continues_look, features_of
from search.trees.files import read_trees
from trainer.evaluation.policies import groups_of
from trainer.evaluation.strategies import ComparedStrategy, Measured, StrategyBench

OUTCOMES = "outcomes.json"


@dataclass(frozen=True, kw_only=True)
class ArmOfComparison:
    """A strategy with one budget. `choosable` is false for an arm that only serves as a fixed
    strategy to compare a router with."""

    name: str
    budget: int
    strategy: str
    config: Mapping[str, Any]
    settings: SearchSettings
    choosable: bool
    continues_look: bool

    @property
    def is_look(self) -> bool:
        return self.strategy == "look"


@dataclass(frozen=True, kw_only=True)
class ProblemOutcomes:
    """One problem. `correct` and `flops` have one value per arm. `features` are those of the look.
    `shared_flops` are what an arm that continues the look does not pay again."""

    problem: str
    group: str
    features: tuple[float, ...]
    correct: tuple[bool, ...]
    flops: tuple[float, ...]
    flops_with_kept_prefixes: tuple[float, ...]
    shared_flops: float
    shared_flops_with_kept_prefixes: float


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The content of outcomes.json. The look is the first arm."""

    split: str
    arms: tuple[ArmOfComparison, ...]
    problems: tuple[ProblemOutcomes, ...]


def look_of(compared: Sequence[ComparedStrategy]) -> ComparedStrategy | None:
    """The comparison's strategy `look`, or None. Raises ValueError for several looks."""
    looks = [s for s in compared if isinstance(s.searches[0], LookConfig)]
    if len(looks) > 1 or (looks and len(looks[0].budgets) > 1):
        raise ValueError("strategies holds more than one look: give one, with one budget")
    return looks[0] if looks else None


def outcomes_of(
    bench: StrategyBench,
    split: str,
    look: ComparedStrategy,
    measured_look: Measured,
    others: Sequence[tuple[ComparedStrategy, Measured, Sequence[int]]],
) -> Outcomes:
    """The outcomes of the strategies that ran on `bench`. `others` are those beside the look, each
    with what was measured and the budgets that a router may choose. A strategy that sees the truth
    (its name holds "oracle") and a routed one are left out."""
    [config], [budget] = look.searches, look.budgets
    arms = [_arm(look, config, choosable=True, continues=False)]
    columns = [(measured_look.correct[budget], measured_look.usage[budget])]
    for strategy, measured, choosable in others:
        if "oracle" in strategy.name or strategy.is_routed:
            continue
        for search in strategy.searches:
            for at in search.budgets:
                alone = replace(search, budgets=(at,))
                goes_on = continues_look(alone, strategy.settings, config, look.settings)
                arms.append(_arm(strategy, alone, choosable=at in choosable, continues=goes_on))
                columns.append((measured.correct[at], measured.usage[at]))
    rows: list[ProblemOutcomes] = []
    problems, final_answer = bench.problems, bench.workbench.final_answer
    looks = read_trees(bench.folder / f"{look.name}_{budget}.jsonl")
    for i, (problem, group, seen) in enumerate(
        zip(problems, groups_of(problems), looks, strict=True)
    ):
        usages = [usage[i] for _, usage in columns]
        # Apart from the root's score, a look is a best of N.
        shared = seen.usage - Usage(reward=seen.nodes[0].usage.reward)
        rows.append(
            ProblemOutcomes(
                problem=problem.id,
                group=group,
                features=features_of(seen.nodes, partial(final_answer, problem)),
                correct=tuple(correct[i] for correct, _ in columns),
                flops=tuple(usage.flops for usage in usages),
                flops_with_kept_prefixes=tuple(u.flops - u.repeated_flops for u in usages),
                shared_flops=shared.flops,
                shared_flops_with_kept_prefixes=shared.flops - shared.repeated_flops,
            )
        )
    return Outcomes(split=split, arms=tuple(arms), problems=tuple(rows))


def _arm(
    strategy: ComparedStrategy, config: Any, *, choosable: bool, continues: bool
) -> ArmOfComparison:
    return ArmOfComparison(
        name=strategy.name,
        budget=config.budgets[0],
        strategy=strategy_name(config),
        config=asdict(config),
        settings=strategy.settings,
        choosable=choosable,
        continues_look=continues,
    )
