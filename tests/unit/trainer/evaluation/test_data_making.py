"""Plain sampling as the control of a tree search that makes training data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data.types import ModelUsage, Outcome, Problem, StopReason, Usage, Verdict
from search.base import Node, SearchResult
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from trainer.evaluation.data_making import compare_data_making

PROBLEMS = [Problem(id=name, prompt="?", answer="r") for name in "pq"]


class Bench:
    """A tree costs 60 positions and 900 FLOPs with its reward model; a sample 10 and 100."""

    verifier = SimpleNamespace(verify=lambda *_: Verdict(outcome=Outcome.CORRECT))

    def __init__(self) -> None:
        self.samples: dict[str, int] = {}

    def search(
        self, problems: list[Problem], config: Any, settings: Any, *, name: str, **_: Any
    ) -> list[SearchResult]:
        usage = Usage(
            policy=ModelUsage(positions=40, flops=400.0), reward=ModelUsage(positions=20, flops=500)
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
    rows = compare_data_making(
        bench, PROBLEMS, MCTSConfig(), SearchSettings(), tokens_per_sample=10.0, folder=Path()
    )
    assert bench.samples == {"making_sample": 6, "making_sample_flops": 9}
    found = [(r.method, r.tokens, r.flops, r.solved) for r in rows]
    assert found == [
        ("mcts", 120, 1800.0, 2),
        ("sample", 120, 1200.0, 2),
        ("sample_equal_flops", 180, 1800.0, 2),
    ]
