"""Measures the thoughts of policies that think: behaviours in greedy solutions, and the accuracy of
one greedy chain against its budget of thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.behaviours import behaviour_rates
from data.types import Problem
from search.base import SearchResult, solution_text
from search.settings import SearchSettings
from search.strategies.thinking import ThinkingConfig, thought_counts
from search.trees.files import read_trees
from trainer.evaluation.auroc_by_depth import auroc_metrics
from trainer.evaluation.policies import accuracy_row
from trainer.evaluation.scaling import fit_of_searches
from trainer.measures.results import (
    AccuracyRow,
    EvaluationResults,
    PolicyBehaviours,
    ScalingFit,
    ThinkingRow,
)
from trainer.searching.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class MeasuredThoughts:
    """What `measure_thoughts` found; all parts are empty for a policy that does not think."""

    behaviours: tuple[PolicyBehaviours, ...] = ()
    accuracy: tuple[AccuracyRow, ...] = ()
    scaling: tuple[ScalingFit, ...] = ()
    thinking: tuple[ThinkingRow, ...] = ()


def measure_thoughts(
    workbench: Workbench,
    policy: str,
    problems: Sequence[Problem],
    folder: Path,
    budgets: tuple[int, ...],
) -> MeasuredThoughts:
    """Measure a policy after `evaluate_greedy` did, from the same folder. A policy thinks when one
    of its greedy solutions has a thought. No budgets: only the behaviours are measured."""
    greedy = read_trees(folder / f"{policy}_greedy.jsonl")
    solutions = [(r.problem, solution_text(r.nodes, 1)) for r in greedy if r.nodes[1:]]
    rates = behaviour_rates(solutions) if solutions else None
    if rates is None or not rates.thoughts:
        return MeasuredThoughts()
    behaviours = (PolicyBehaviours(policy=policy, rates=rates),)
    if not budgets:
        return MeasuredThoughts(behaviours=behaviours)
    results = workbench.search(
        problems,
        ThinkingConfig(budgets=budgets),
        SearchSettings(answer="first", temperature=0.0),
        folder=folder,
        name=f"{policy}_thinking",
        policy_name=policy,
        max_concurrent=len(problems),
    )
    rows = tuple(accuracy_row(workbench, policy, "thinking", results, b) for b in budgets)
    return MeasuredThoughts(
        behaviours=behaviours,
        accuracy=rows,
        scaling=fit_of_searches(workbench, rows, results),
        thinking=tuple(thinking_row(policy, results, budget) for budget in budgets),
    )


def with_thoughts(
    results: EvaluationResults, thoughts: Sequence[MeasuredThoughts]
) -> EvaluationResults:
    """The results with what was measured of all policies' thoughts."""
    return replace(
        results,
        accuracy=results.accuracy + tuple(row for t in thoughts for row in t.accuracy),
        behaviours=tuple(row for t in thoughts for row in t.behaviours),
        thinking=tuple(row for t in thoughts for row in t.thinking),
        scaling=results.scaling + tuple(row for t in thoughts for row in t.scaling),
    )


def evaluation_metrics(results: EvaluationResults) -> dict[str, float]:
    """The accuracies, the reward model's AUROCs and the rates of behaviours, by the names under
    which the stage logs them."""
    found = {f"{row.policy}_{row.strategy}_{row.budget}": row.value for row in results.accuracy}
    if results.prm is not None:
        found |= auroc_metrics(results.prm.auroc_by_depth)
    for row in results.behaviours:
        found |= {f"{row.policy}_{key}": value for key, value in row.rates.metrics().items()}
    for fit in results.scaling:
        found[f"{fit.policy}_{fit.strategy}_slope_per_doubling"] = fit.slope.value
    return found


def thinking_row(policy: str, results: Sequence[SearchResult], budget: int) -> ThinkingRow:
    """The thoughts of the chosen chains at this budget. A search that never started has none."""
    counts = [
        thought_counts(result.nodes, leaf)
        for result in results
        if (leaf := result.at(budget).answer_node) is not None
    ]
    n = max(1, len(counts))
    return ThinkingRow(
        policy=policy,
        budget=budget,
        thinking_tokens=sum(c.tokens for c in counts) / n,
        cut=sum(c.cut for c in counts) / n,
        extended=sum(c.extensions > 0 for c in counts) / n,
    )
