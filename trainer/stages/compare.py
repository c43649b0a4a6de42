"""The comparison stage runs search strategies at several budgets on the same problems.

It answers two questions. Does the accuracy of a strategy grow with its budget? How accurate is it
at equal FLOPs, which include the reward model's FLOPs? The stage writes comparison.json,
comparison.md and the search trees.

If one of the strategies is a look (search/strategies/look.py), the stage also writes outcomes.json:
what every strategy did on every problem. scripts/fit_router.py fits a router on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.settings import suggestion
from data.slices import Choice
from data.types import Problem
from rewards.verifiers.by_name import check_verifier
from search.settings import JUDGE, SearchSettings
from search.strategies.look import LookConfig
from search.strategies.solutions import SolutionsConfig
from search.strategies.thinking import ThinkingConfig
from trainer.evaluation.outcomes import OUTCOMES, look_of, outcomes_of
from trainer.evaluation.strategies import (
    ComparedStrategy,
    Measured,
    StrategyBench,
    at_equal_flops,
    fine_grid,
    growth_of,
    match,
    read_strategy,
)
from trainer.evaluation.strategy_tables import comparison_markdown
from trainer.measures.results import EqualFlopsRow, StrategyComparison
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import StageRecord, numbered_inputs, run_stage
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.workbench import open_workbench

REFERENCE_NAME = "best_of_n"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which strategies are compared.

    Each of `strategies` is a mapping: `strategy`, `budgets`, and any other key of the strategy's
    config or of `SearchSettings`, whose values in the recipe hold for every one. `rerun: true`
    searches anew for every budget, as strategies without nested budgets need it. Every strategy is
    compared at equal FLOPs with best of N, whose answer is chosen by the recipe's settings. All
    share the problems, and all but those of `policies` share the policy, the reward model and the
    `judge`; `answer_guidance` of a strategy says which of both chooses its answer.
    """

    policy: str
    """Folder or hub id of the policy."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    strategies: dict[str, Any]
    """Strategies to compare: a name for each, and its settings."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    policies: dict[str, str] = field(default_factory=dict[str, str])
    """Policies of strategies that do not search with policy, by the strategy; no reward model."""
    judge: str | None = None
    """Second reward model, which chooses the answer with answer_guidance: judge; null: none."""
    split: str = "validation"
    """Split whose problems are used: train, validation or test."""
    skip: int = 0
    """Problems left out at the start of the split."""
    slice: str | None = None
    """Named slice of the data stage's problems, in place of split and skip; null: none."""
    num_problems: int = 1000
    """Problems searched."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    reference_budgets: tuple[int, ...] = (4, 16, 64)
    """Values N of best of N that strategies are compared with."""
    target_best_of_n: int = 64
    """Value N of best of N that strategies are to match; one of reference_budgets."""
    margin: float = 0.02
    """A strategy matches if, by the 95 % interval, it loses at most this much (0.02 = 2 points)."""
    strategies_tested_for_growth: list[str] = field(default_factory=list[str])
    """Strategies whose growth with their budget is tested."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        for name in self.policies:
            if name not in self.strategies:
                raise ValueError(
                    f"policies names {name!r}, which is none of strategies; "
                    f"{suggestion(name, self.strategies)}"
                )
        for name in self.strategies_tested_for_growth:
            if name not in self.strategies:
                raise ValueError(
                    f"strategies_tested_for_growth names {name!r}, which is none of strategies; "
                    f"{suggestion(name, self.strategies)}"
                )
            if len(self.strategies[name].get("budgets", ())) < 2:
                raise ValueError(
                    f"strategies_tested_for_growth names {name!r}, which has fewer than two budgets"
                )
        if self.target_best_of_n not in self.reference_budgets:
            raise ValueError(
                f"target_best_of_n is {self.target_best_of_n}; it must be one of "
                f"reference_budgets, {self.reference_budgets}"
            )
        if REFERENCE_NAME in self.strategies:
            raise ValueError(
                f"{REFERENCE_NAME!r} is the reference's name: give the strategy another"
            )

    def chosen_problems(self) -> list[Problem]:
        choice = Choice(split=self.split, skip=self.skip, size=self.num_problems, name=self.slice)
        return choice.read(self.data)


def run_compare(
    runtime: RuntimeConfig,
    config: CompareConfig,
    settings: SearchSettings,
    engine: SearchEngineConfig = IN_PROCESS,
) -> None:
    compared = [read_strategy(name, values, settings) for name, values in config.strategies.items()]
    look = look_of(compared)
    _check_policies(config, compared)
    if config.reward_model is None:
        _check_guidance(config, compared, settings)
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "reward_model": config.reward_model,
        "judge": config.judge,
        "data": config.data,
    }
    inputs |= numbered_inputs("router", [s.searches[0].router for s in compared if s.is_routed])
    inputs |= {f"policy_{name}": policy for name, policy in config.policies.items()}
    configs = [config, settings, *engine.recorded]
    with run_stage("compare", runtime, configs, inputs) as record:
        folder = Path(runtime.output_dir)
        workbench = open_workbench(
            policy=config.policy,
            reward_model=config.reward_model,
            judge=config.judge,
            verifier=config.verifier,
            seed=runtime.seed,
            kept_prefixes_mib=settings.kept_prefixes_mib,
            engine=engine,
        )
        problems = config.chosen_problems()
        bench = StrategyBench(workbench, problems, folder, Path(config.policy).name)
        grid = fine_grid(config.reference_budgets)
        search = SolutionsConfig(budgets=grid)
        best_of_n = ComparedStrategy(
            name=REFERENCE_NAME, searches=(search,), settings=settings, budgets=grid
        )
        reference = bench.run(best_of_n)
        own = [strategy for strategy in compared if strategy.name not in config.policies]
        found = {strategy.name: bench.run(strategy) for strategy in own}
        record.search(workbench.usage, workbench.served)
        for strategy in compared:
            if strategy.name in config.policies:
                found[strategy.name] = _run_other(runtime, config, strategy, bench, record)
        measured = {strategy.name: found[strategy.name] for strategy in compared}
        if workbench.accelerator.is_main_process:
            comparison = _comparison(config, problems, reference, measured)
            content = asdict(comparison)
            (folder / "comparison.json").write_text(json.dumps(content, indent=1))
            text = comparison_markdown(comparison)
            (folder / "comparison.md").write_text(text)
            print(text)
            if look is not None:
                others = [(s, measured[s.name], s.budgets) for s in compared if s is not look]
                others = [(best_of_n, reference, config.reference_budgets), *others]
                outcomes = outcomes_of(bench, config.split, look, measured[look.name], others)
                (folder / OUTCOMES).write_text(json.dumps(asdict(outcomes)))
            record.run.log_table("strategies", content["accuracy"])
        record.metrics |= {
            f"{name}_{b}": row.value for name, m in measured.items() for b, row in m.rows.items()
        }
        record.metrics |= {f"ended_{end}": n for end, n in sorted(bench.ends.items())}
        record.metrics |= {f"paths_{kind}": n for kind, n in sorted(bench.paths.items())}


def _check_policies(config: CompareConfig, compared: Sequence[ComparedStrategy]) -> None:
    """Raises ValueError if a strategy with a policy of its own needs a reward model, or belongs to
    a router, which knows one policy."""
    for strategy in compared:
        if strategy.name not in config.policies:
            continue
        settings, kind = strategy.settings, strategy.searches[0]
        if strategy.is_routed or isinstance(kind, LookConfig):
            raise ValueError(f"strategy {strategy.name!r}: a look and a router search with policy")
        if _asks(settings, kind, ("prm", JUDGE)):
            raise ValueError(
                f"strategy {strategy.name!r} has a policy of its own, and no reward model scores "
                "its solutions: set its guidance to likelihood or self_consistency"
            )


def _check_guidance(
    config: CompareConfig, compared: Sequence[ComparedStrategy], settings: SearchSettings
) -> None:
    """Raises ValueError if best of N or another strategy needs the reward model."""
    own = [s for s in compared if s.name not in config.policies]
    asked = [(REFERENCE_NAME, settings, SolutionsConfig(budgets=(1,)))]
    asked += [(s.name, s.settings, kind) for s in own for kind in s.searches]
    for name, its, kind in asked:
        if _asks(its, kind, ("prm",)):
            raise ValueError(
                f"{name!r} is guided by the reward model, and reward_model is not given: give one, "
                "or set guidance to likelihood or self_consistency"
            )


def _asks(settings: SearchSettings, kind: Any, guides: Sequence[str]) -> bool:
    """Whether a search asks one of these guides for scores."""
    scored = settings.needs_scores or not isinstance(kind, SolutionsConfig | ThinkingConfig)
    return scored and not {settings.guidance, settings.choosing_guidance}.isdisjoint(guides)


def _run_other(
    runtime: RuntimeConfig,
    config: CompareConfig,
    strategy: ComparedStrategy,
    bench: StrategyBench,
    record: StageRecord,
) -> Measured:
    """Run a strategy with the policy of its own, on the same problems."""
    policy = config.policies[strategy.name]
    workbench = open_workbench(
        policy=policy, reward_model=None, verifier=config.verifier, seed=runtime.seed
    )
    other = StrategyBench(workbench, bench.problems, bench.folder, Path(policy).name)
    measured = other.run(strategy)
    record.search(workbench.usage, workbench.served)
    bench.ends += other.ends
    bench.paths += other.paths
    return measured


def _comparison(
    config: CompareConfig,
    problems: Sequence[Problem],
    reference: Measured,
    measured: Mapping[str, Measured],
) -> StrategyComparison:
    rows = [reference.rows[n] for n in config.reference_budgets]
    rows += [row for m in measured.values() for row in m.rows.values()]
    return StrategyComparison(
        split=config.split,
        accuracy=tuple(rows),
        equal_flops=tuple(
            EqualFlopsRow(strategy=name, budget=budget, kept_prefixes=kept, **asdict(c))
            for name, m in measured.items()
            for kept in (False, True)
            for budget, c in at_equal_flops(m, reference, problems, kept_prefixes=kept).items()
        ),
        growth=tuple(
            growth_of(name, measured[name], problems)
            for name in config.strategies_tested_for_growth
        ),
        matches=tuple(
            match(name, m, reference, config.target_best_of_n, config.margin, problems)
            for name, m in measured.items()
        ),
        target_best_of_n=config.target_best_of_n,
        margin=config.margin,
    )
