"""Plain sampling as the control of a tree search that makes training data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.types import ModelUsage, Outcome, Problem, StopReason, Usage, Verdict
from search.base import Node, SearchResult
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from trainer.evaluation.data_making import DataMaker, compare_data_making, data_maker_of
from trainer.runtime.manifests import read_manifest, write_manifest

PROBLEMS = [Problem(id=name, prompt="?", answer="r") for name in "pq"]


class Bench:
    """A tree costs 60 positions and 900 FLOPs with its reward model; a sample 10 and 100."""

    verifier = SimpleNamespace(verify=lambda *_: Verdict(outcome=Outcome.CORRECT))

    def __init__(self, repeated: float = 0.0) -> None:
        self.repeated = repeated
        self.samples: dict[str, int] = {}

    def search(
        self, problems: list[Problem], config: Any, settings: Any, *, name: str, **_: Any
    ) -> list[SearchResult]:
        usage = Usage(
            policy=ModelUsage(positions=40, flops=400.0),
            reward=ModelUsage(positions=20, flops=500.0, repeated_flops=self.repeated),
        )
        if isinstance(config, SolutionsConfig):
            [n] = config.budgets
            self.samples[name] = n
            usage = Usage(policy=ModelUsage(positions=10 * n, flops=100.0 * n))
        root = Node(id=0, parent=-1, token_ids=(), text="", children=[1])
        end = Node(
            id=1, parent=0, token_ids=(1,), text="r", terminal=StopReason.END_OF_SOLUTION
        )  # fmt: skip
        return [
            SearchResult(
                problem=p, strategy="x", nodes=(root, end), snapshots=(), usage=usage
            )
            for p in problems
        ]  # fmt: skip


def test_sampling_gets_the_tokens_and_the_flops_of_the_trees() -> None:
    bench: Any = Bench()
    maker = DataMaker(mcts=MCTSConfig(), settings=SearchSettings())
    rows = compare_data_making(bench, PROBLEMS, maker, tokens_per_sample=10.0, folder=Path())
    assert bench.samples == {"making_sample": 6, "making_sample_flops": 9}
    found = [(r.method, r.tokens, r.flops, r.solved) for r in rows]
    assert found == [
        ("mcts", 120, 1800.0, 2),
        ("sample", 120, 1200.0, 2),
        ("sample_equal_flops", 180, 1800.0, 2),
    ]
    assert [r.distinct_per_tflop for r in rows] == [2e12 / 1800, 2e12 / 1200, 2e12 / 1800]


def test_kept_prefixes_cost_a_tree_nothing() -> None:
    """600 of a tree's 900 FLOPs are of prefixes that were kept, so 3 samples cost the same."""
    bench: Any = Bench(repeated=600.0)
    maker = DataMaker(mcts=MCTSConfig(), settings=SearchSettings(kept_prefixes_mib=1))
    rows = compare_data_making(bench, PROBLEMS, maker, tokens_per_sample=10.0, folder=Path())
    assert bench.samples == {"making_sample": 6, "making_sample_flops": 3}
    assert [r.computed_flops for r in rows] == [600.0, 1200.0, 600.0]
    assert [r.distinct_per_tflop for r in rows] == [2e12 / 600, 2e12 / 1200, 2e12 / 600]


def test_the_data_maker_is_the_one_of_a_search_stage(tmp_path: Path) -> None:
    mcts = MCTSConfig(budgets=(8,), widening=1.0, without_replacement=True, priors="sequence")
    settings = SearchSettings(kept_prefixes_mib=256, max_new_tokens=20)
    recipe = {**asdict(mcts), **asdict(settings), "strategy": "mcts", "num_problems": 3}

    def found(stage: str, **more: Any) -> DataMaker:
        write_manifest(
            tmp_path, stage=stage, recipe=recipe | more, seed=1, inputs={}, usage={}, metrics={},
            seconds=1.0,
        )  # fmt: skip
        return data_maker_of("trees", read_manifest(tmp_path))

    assert found("search") == DataMaker(mcts=mcts, settings=settings)
    with pytest.raises(ValueError, match="of beam; it must be a search stage whose strategy is"):
        found("search", strategy="beam")
    with pytest.raises(ValueError, match="it must be a search stage"):
        found("label")
