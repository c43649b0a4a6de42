"""The comparison stage: search strategies side by side, at several budgets, on the same problems.

Answers two questions: does a strategy grow with its budget, and what does it give at equal FLOPs,
the reward model's included? Writes comparison.json, comparison.md and the trees behind them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from data.problems import read_problems
from data.types import Problem
from search.base import SearchResult
from search.settings import SearchSettings, check_budgets
from search.solutions import SolutionsConfig
from search.strategies import entry
from trainer.comparison_table import as_markdown
from trainer.evaluation import AccuracyRow, Comparison, accuracy_row, compare, groups_of
from trainer.recipe import check_values, nearest
from trainer.runtime import RuntimeConfig
from trainer.searching import Workbench, correct_at, ends_of, paths_of
from trainer.stage import run_stage
from trainer.statistics import Estimate, adjust_holm, mean_estimate, paired_p_value

REFERENCE = "best_of_n"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """`arms`: name -> settings: `strategy`, `budgets` and any other key of the strategy's config or
    of `SearchSettings`, whose values in the recipe hold for every arm. `rerun: true` searches anew
    for every budget, as strategies without nested budgets need it.
    `reference_budgets` are N of best of N, whose answer is chosen by the recipe's settings: what
    every arm is compared with at equal FLOPs; `target` is the N that arms are to match within
    `margin` points (a fraction of 1) and `growing` names the arms whose growth is tested."""

    policy: str
    reward_model: str
    data: str
    arms: dict[str, Any]
    split: str = "validation"
    skip: int = 0
    num_problems: int = 1000
    verifier: str = "countdown"
    reference_budgets: tuple[int, ...] = (4, 16, 64)
    target: int = 64
    margin: float = 0.02
    growing: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        for name in self.growing:
            if name not in self.arms:
                raise ValueError(
                    f"growing names {name!r}, which is no arm; did you mean "
                    f"{nearest(name, self.arms)!r}?"
                )
            if len(self.arms[name].get("budgets", ())) < 2:
                raise ValueError(f"growing names {name!r}, which has fewer than two budgets")
        if self.target not in self.reference_budgets:
            raise ValueError(
                f"target is {self.target}; it must be one of reference_budgets, "
                f"{self.reference_budgets}"
            )
        if REFERENCE in self.arms:
            raise ValueError(f"{REFERENCE!r} is the reference's name: give the arm another")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One strategy with its settings; `searches` are its runs, each with its budgets."""

    name: str
    searches: tuple[Any, ...]
    settings: SearchSettings
    budgets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Growth:
    """`last_minus_first` and `slope` (accuracy per doubling of the budget) as fractions;
    `adjacent_drops`: Holm-adjusted one-sided p-values (`paired_p_value`) that a budget is worse
    than the one before."""

    arm: str
    budgets: tuple[int, ...]
    last_minus_first: Estimate
    slope: Estimate
    adjacent_drops: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """The smallest budget at which an arm is no worse than the target by more than the margin
    (lower end of the paired 95 % interval), and its FLOPs over the target's; None: at no budget."""

    arm: str
    budget: int | None
    flops_ratio: float | None


def read_arm(name: str, values: Mapping[str, Any], common: SearchSettings) -> Arm:
    """Raises ValueError naming the arm for an unknown or ill-typed key, or a bad value."""
    fields = dict(values)
    try:
        known = entry(str(fields.pop("strategy", "")))
        rerun = fields.pop("rerun", False)
        own = {f.name for f in dataclasses.fields(known.config)}
        shared = {f.name for f in dataclasses.fields(SearchSettings)}
        for key in fields:
            if key not in own | shared:
                raise ValueError(
                    f"unknown key {key!r}; did you mean {nearest(key, sorted(own | shared))!r}?"
                )
        for kind in (known.config, SearchSettings):
            hints = {key: [hint] for key, hint in get_type_hints(kind).items()}
            check_values({k: v for k, v in fields.items() if k in hints}, hints)
        budgets = tuple(fields.pop("budgets", ()))
        check_budgets(budgets, nested=True)
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError("an arm's name names files: letters, digits, - and _ only")
        sees_truth = fields.get("use_verifier") or "oracle" in (
            fields.get("guidance"), fields.get("answer"),
        )  # fmt: skip
        if sees_truth and "oracle" not in name:
            raise ValueError("it sees the truth, so its name must hold 'oracle'")
        config = {key: value for key, value in fields.items() if key in own}
        searches = [(b,) for b in budgets] if rerun else [budgets]
        return Arm(
            name=name,
            searches=tuple(known.config(**config, budgets=b) for b in searches),
            settings=replace(common, **{k: v for k, v in fields.items() if k in shared}),
            budgets=budgets,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"arm {name!r}: {error}") from error


def run_compare(runtime: RuntimeConfig, config: CompareConfig, settings: SearchSettings) -> None:
    from accelerate import Accelerator

    arms = [read_arm(name, values, settings) for name, values in config.arms.items()]
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "reward_model": config.reward_model,
        "data": config.data,
    }
    with run_stage("compare", runtime, [config, settings], inputs) as record:
        accelerator = Accelerator()
        folder = Path(runtime.output_dir)
        workbench = Workbench(
            policy=config.policy,
            reward_model=config.reward_model,
            verifier=config.verifier,
            seed=runtime.seed,
            accelerator=accelerator,
        )
        problems = read_problems(Path(config.data) / f"{config.split}.jsonl")
        problems = problems[config.skip : config.skip + config.num_problems]
        bench = _Bench(workbench, problems, folder, Path(config.policy).name)
        grid = fine_grid(config.reference_budgets)
        search = SolutionsConfig(budgets=grid)
        reference = bench.run(
            Arm(name=REFERENCE, searches=(search,), settings=settings, budgets=grid)
        )
        measured = {arm.name: bench.run(arm) for arm in arms}
        record.search(workbench.usage)
        if accelerator.is_main_process:
            content = _content(config, problems, reference, measured)
            (folder / "comparison.json").write_text(json.dumps(content, indent=1))
            text = as_markdown(content)
            (folder / "comparison.md").write_text(text)
            print(text)
            record.run.log_table("strategies", content["accuracy"])
        record.metrics |= {
            f"{name}_{b}": row.value for name, m in measured.items() for b, row in m.rows.items()
        }
        record.metrics |= {f"ended_{end}": n for end, n in sorted(bench.ends.items())}
        record.metrics |= {f"paths_{kind}": n for kind, n in sorted(bench.paths.items())}


def fine_grid(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets, and more values of N at most 4 % (or 1) apart up to the largest, so that some N
    costs nearly what a strategy does."""
    grid, n = set(budgets), 1
    while n < budgets[-1]:
        grid.add(n)
        n = max(n + 1, int(1.04 * n))
    return tuple(sorted(grid))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """By budget: the accuracy row and which problems are correct."""

    rows: dict[int, AccuracyRow]
    correct: dict[int, list[bool]]


class _Bench:
    """Runs arms on the same problems."""

    def __init__(
        self, workbench: Workbench, problems: Sequence[Problem], folder: Path, policy: str
    ) -> None:
        self.workbench = workbench
        self.problems = problems
        self.folder = folder
        self.policy = policy
        self.ends = ends_of([])
        self.paths = paths_of([])

    def run(self, arm: Arm) -> Measured:
        rows: dict[int, AccuracyRow] = {}
        correct: dict[int, list[bool]] = {}
        for search in arm.searches:
            results: list[SearchResult] = self.workbench.search(
                self.problems,
                search,
                arm.settings,
                folder=self.folder,
                name=f"{arm.name}_{search.budgets[-1]}",
                policy_name=self.policy,
            )
            self.ends += ends_of(results)
            self.paths += paths_of(results)
            for budget in search.budgets:
                rows[budget] = accuracy_row(self.workbench, self.policy, arm.name, results, budget)
                correct[budget] = correct_at(self.workbench, results, budget)
        return Measured(rows=rows, correct=correct)


def _content(
    config: CompareConfig,
    problems: Sequence[Problem],
    reference: Measured,
    measured: Mapping[str, Measured],
) -> dict[str, Any]:
    rows = [reference.rows[n] for n in config.reference_budgets]
    rows += [row for m in measured.values() for row in m.rows.values()]
    growth = [growth_of(name, measured[name], problems) for name in config.growing]
    matches = [
        match(name, m, reference, config.target, config.margin, problems)
        for name, m in measured.items()
    ]
    return {
        "split": config.split,
        "accuracy": [asdict(row) for row in rows],
        "equal_flops": [
            {"strategy": name, "budget": budget, **asdict(c)}
            for name, m in measured.items()
            for budget, c in at_equal_flops(m, reference, problems).items()
        ],
        "growth": [asdict(g) for g in growth],
        "matches": [asdict(m) for m in matches],
        "target": config.target,
        "margin": config.margin,
    }


def at_equal_flops(
    measured: Measured, reference: Measured, problems: Sequence[Problem]
) -> dict[int, Comparison]:
    """Each budget of an arm against the reference's N nearest in FLOPs."""
    found: dict[int, Comparison] = {}
    for budget, row in measured.rows.items():
        n = min(reference.rows, key=lambda n: abs(reference.rows[n].flops - row.flops))
        share = reference.rows[n].flops / max(row.flops, 1.0)
        found[budget] = compare(
            measured.correct[budget],
            reference.correct[n],
            f"against best of {n} ({share:.2f} of the FLOPs)",
            problems,
        )
    return found


def growth_of(name: str, measured: Measured, problems: Sequence[Problem]) -> Growth:
    """Paired over problems; the slope is that of least squares on log2(budget), a mean over
    problems of a fixed combination of their outcomes."""
    budgets = sorted(measured.correct)
    logs = [math.log2(b) for b in budgets]
    centre = sum(logs) / len(logs)
    spread = math.fsum((x - centre) ** 2 for x in logs)
    slopes = [
        math.fsum((x - centre) * c for x, c in zip(logs, outcomes, strict=True)) / spread
        if spread
        else 0.0
        for outcomes in zip(*(measured.correct[b] for b in budgets), strict=True)
    ]
    first, last = measured.correct[budgets[0]], measured.correct[budgets[-1]]
    difference = [float(a) - float(b) for a, b in zip(last, first, strict=True)]
    groups = groups_of(problems)
    drops = [
        paired_p_value(measured.correct[a], measured.correct[b], groups)[0]
        for a, b in itertools.pairwise(budgets)
    ]
    return Growth(
        arm=name,
        budgets=tuple(budgets),
        last_minus_first=mean_estimate(difference, groups),
        slope=mean_estimate(slopes, groups),
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
        c = compare(measured.correct[budget], reference.correct[target], "", problems)
        if c.low >= -margin:
            ratio = measured.rows[budget].flops / max(reference.rows[target].flops, 1.0)
            return Match(arm=name, budget=budget, flops_ratio=ratio)
    return Match(arm=name, budget=None, flops_ratio=None)
