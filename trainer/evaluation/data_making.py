"""Measure how much training data a tree search makes, compared with plain sampling at equal tokens
and at equal FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.progress import reported
from data.types import Problem, Usage
from search.base import SearchResult
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from search.trees.training_rows import verified_solutions
from trainer.measures.results import DataMaking
from trainer.searching.workbench import Workbench, total_usage

ANY_NUMBER_OF_SOLUTIONS = 1_000_000  # data making is measured at a fixed number of simulations


def compare_data_making(
    workbench: Workbench,
    problems: Sequence[Problem],
    mcts: MCTSConfig,
    settings: SearchSettings,
    *,
    tokens_per_sample: float,
    folder: Path,
) -> tuple[DataMaking, ...]:
    """The tree search, then its controls: plain sampling with the verifier, with about as many
    token positions and with about as many FLOPs. `tokens_per_sample` is the mean length of a
    sample. The searches are written into `folder`."""
    trees = workbench.search(
        problems,
        replace(mcts, use_verifier=True, max_solutions=ANY_NUMBER_OF_SOLUTIONS),
        replace(settings, temperature=1.0),
        folder=folder,
        name="making_mcts",
        policy_name="final",
    )

    def sampled(samples: int, name: str) -> list[SearchResult]:
        return workbench.search(
            problems,
            SolutionsConfig(budgets=(samples,)),
            replace(settings, answer="first", temperature=1.0),
            folder=folder,
            name=name,
            policy_name="final",
        )

    spent = total_usage(trees)
    samples = _samples_for(spent, len(problems), tokens_per_sample)
    plain = sampled(samples, "making_sample")
    per_sample = total_usage(plain).flops / samples
    equal_flops = sampled(max(1, round(spent.flops / per_sample)), "making_sample_flops")
    return (
        _row(workbench, "mcts", trees),
        _row(workbench, "sample", plain),
        _row(workbench, "sample_equal_flops", equal_flops),
    )


def _samples_for(spent: Usage, problems: int, tokens_per_sample: float) -> int:
    """The number of samples per problem that need about as many token positions as `spent`."""
    positions = (spent.policy.positions + spent.reward.positions) / problems
    return max(1, round(positions / tokens_per_sample))


def _row(workbench: Workbench, method: str, results: Sequence[SearchResult]) -> DataMaking:
    """Problems solved and distinct verified solutions, per million tokens run through the
    models."""
    checked = reported(results, "problems whose solutions are checked")
    found = [verified_solutions(r, workbench.verifier.verify)[0] for r in checked]
    usage = sum((r.usage for r in results), Usage())
    tokens = usage.policy.positions + usage.reward.positions
    solved = sum(bool(solutions) for solutions in found)
    distinct = sum(len(solutions) for solutions in found)
    return DataMaking(
        method=method,
        problems=len(results),
        solved=solved,
        distinct_solutions=distinct,
        tokens=tokens,
        flops=usage.flops,
        solved_per_million_tokens=solved / tokens * 1e6,
        distinct_per_million_tokens=distinct / tokens * 1e6,
    )
