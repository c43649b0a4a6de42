"""The router stage fits a router on a comparison of validation problems and tests it on another.

It reads what every strategy did on every problem (outcomes.json) and runs no model. It writes
router.json, which `strategy: routed` uses. With test problems, it also writes routing.json and
routing.md: the router beside fixed strategies and beside an oracle.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data.json_records import read_record
from search.settings import check_budgets
from trainer.evaluation.outcomes import OUTCOMES, Outcomes
from trainer.evaluation.router_fit import fit_router
from trainer.evaluation.routing import check_outcomes, evaluate_router
from trainer.evaluation.routing_table import routing_markdown
from trainer.measures.results import RoutingResults
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import StageRecord, run_stage


@dataclass(frozen=True, kw_only=True)
class FitRouterConfig:
    """What a router is fitted on and tested on."""

    comparison: str
    """Folder of a comparison on validation problems, with a strategy look among its strategies."""
    test_comparison: str | None = None
    """Folder of the same comparison on test problems; null: the router is not tested."""
    strategies: list[str] = field(default_factory=list[str])
    """Names of the compared strategies that the router may choose; empty: all."""
    budgets: tuple[int, ...] = (20, 30, 40, 50, 60, 80, 100)
    """Mean FLOPs, percent of those of the best fixed strategy; ascending."""
    regularization: float = 1.0
    """Strength of the L2 penalty on the weights of the standardised features; above 0."""
    margin: float = 0.02
    """The router matches the best fixed strategy if it loses at most this (0.02 = 2 points)."""
    kept_prefixes: bool = False
    """Count the FLOPs of an engine that keeps prefixes."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=True)
        if not self.regularization > 0:
            raise ValueError(f"regularization is {self.regularization}; it must be above 0")


def run_fit_router(runtime: RuntimeConfig, config: FitRouterConfig) -> None:
    inputs = {"comparison": config.comparison, "test_comparison": config.test_comparison}
    with run_stage("fit_router", runtime, [config], inputs) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        fitting = read_outcomes(config.comparison)
        test = read_outcomes(config.test_comparison) if config.test_comparison else None
        if test is not None:
            check_outcomes(fitting, test)
        router = fit_router(
            fitting,
            strategies=config.strategies,
            budgets=config.budgets,
            regularization=config.regularization,
            kept_prefixes=config.kept_prefixes,
        )
        (folder / "router.json").write_text(json.dumps(asdict(router), indent=1))
        record.metrics |= {"problems": len(fitting.problems), "arms": len(router.arms)}
        if test is not None:
            results = evaluate_router(
                router, fitting, test, margin=config.margin, kept_prefixes=config.kept_prefixes
            )
            _write_results(results, folder, record)


def read_outcomes(folder: str) -> Outcomes:
    """Raises ValueError for a comparison without a look, which has no outcomes.json."""
    path = Path(folder) / OUTCOMES
    if not path.is_file():
        raise ValueError(
            f"{folder!r} has no {OUTCOMES}: compare strategies with a look among them, for example "
            "look: {strategy: look, budgets: [4]}"
        )
    return read_record(Outcomes, path)


def _write_results(results: RoutingResults, folder: Path, record: StageRecord) -> None:
    (folder / "routing.json").write_text(json.dumps(asdict(results), indent=1))
    text = routing_markdown(results)
    (folder / "routing.md").write_text(text)
    print(text)
    for row in results.rows:
        record.metrics |= {
            f"accuracy_{row.budget}": row.accuracy.value,
            f"flops_share_{row.budget}": row.flops / results.best_fixed.flops,
            f"oracle_gap_{row.budget}": row.oracle_gap.value,
        }
    if results.matched_flops_ratio is not None:
        record.metrics["matched_flops_ratio"] = results.matched_flops_ratio
