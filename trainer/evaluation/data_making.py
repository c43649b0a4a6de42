"""Measure how much training data a tree search makes, compared with plain sampling at equal tokens
and at equal FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

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


@dataclass(frozen=True, kw_only=True)
class DataMaker:
    """A tree search that makes training data."""

    mcts: MCTSConfig
    settings: SearchSettings

    def cost(self, usage: Usage) -> float:
        """The FLOPs that were computed: without those of kept prefixes, where these are kept."""
        kept = usage.repeated_flops if self.settings.kept_prefixes_mib else 0.0
        return usage.flops - kept


def data_maker_of(folder: str, manifest: Mapping[str, Any]) -> DataMaker:
    """The settings with which a search stage made its trees, from the manifest in its folder.
    Raises ValueError for the folder of another stage, or of another strategy."""
    recipe: Mapping[str, Any] = manifest["recipe"]
    if manifest["stage"] != "search" or recipe["strategy"] != "mcts":
        kind = recipe.get("strategy", manifest["stage"])
        raise ValueError(
            f"data_making_search is {folder!r}, which is of {kind}; it must be a search stage "
            "whose strategy is mcts"
        )
    return DataMaker(
        mcts=cast("MCTSConfig", _values_of(MCTSConfig, recipe)),
        settings=cast("SearchSettings", _values_of(SearchSettings, recipe)),
    )


def _values_of(kind: Any, recipe: Mapping[str, Any]) -> Any:
    values = {item.name: recipe[item.name] for item in fields(kind) if item.name in recipe}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def compare_data_making(
    workbench: Workbench,
    problems: Sequence[Problem],
    maker: DataMaker,
    *,
    tokens_per_sample: float,
    folder: Path,
) -> tuple[DataMaking, ...]:
    """The tree search, then its controls: plain sampling with the verifier, with about as many
    token positions and with about as many computed FLOPs. `tokens_per_sample` is the mean length of
    a sample. The searches are written into `folder`."""
    settings = maker.settings
    trees = workbench.search(
        problems,
        replace(maker.mcts, use_verifier=True, max_solutions=ANY_NUMBER_OF_SOLUTIONS),
        settings,
        folder=folder,
        name="making_mcts",
        policy_name="final",
    )

    def sampled(samples: int, name: str) -> list[SearchResult]:
        return workbench.search(
            problems,
            SolutionsConfig(budgets=(samples,)),
            replace(settings, answer="first"),
            folder=folder,
            name=name,
            policy_name="final",
        )

    spent = total_usage(trees)
    samples = _samples_for(spent, len(problems), tokens_per_sample)
    plain = sampled(samples, "making_sample")
    per_sample = maker.cost(total_usage(plain)) / samples
    equal_flops = sampled(max(1, round(maker.cost(spent) / per_sample)), "making_sample_flops")
    return (
        _row(workbench, "mcts", trees, maker),
        _row(workbench, "sample", plain, maker),
        _row(workbench, "sample_equal_flops", equal_flops, maker),
    )


def _samples_for(spent: Usage, problems: int, tokens_per_sample: float) -> int:
    """The number of samples per problem that need about as many token positions as `spent`."""
    positions = (spent.policy.positions + spent.reward.positions) / problems
    return max(1, round(positions / tokens_per_sample))


def _row(
    workbench: Workbench, method: str, results: Sequence[SearchResult], maker: DataMaker
) -> DataMaking:
    """Problems solved and distinct verified solutions, per million tokens run through the models
    and per computed TFLOP."""
    checked = reported(results, "problems whose solutions are checked")
    found = [verified_solutions(r, workbench.verifier.verify)[0] for r in checked]
    usage = sum((r.usage for r in results), Usage())
    tokens = usage.policy.positions + usage.reward.positions
    solved = sum(bool(solutions) for solutions in found)
    distinct = sum(len(solutions) for solutions in found)
    cost = maker.cost(usage)
    return DataMaking(
        method=method,
        problems=len(results),
        solved=solved,
        distinct_solutions=distinct,
        tokens=tokens,
        flops=usage.flops,
        computed_flops=cost,
        solved_per_million_tokens=solved / tokens * 1e6,
        distinct_per_million_tokens=distinct / tokens * 1e6,
        distinct_per_tflop=distinct / cost * 1e12,
    )
