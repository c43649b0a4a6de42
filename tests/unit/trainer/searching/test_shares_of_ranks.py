"""What two ranks find of their shares of the problems is what one finds of all, byte for byte: by
every labeller and every strategy, the ranks run one after the other here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.tasks.countdown import make_problem
from data.types import Problem
from search.labellers.binary_search import BinarySearchConfig
from search.labellers.by_name import LABELLERS, LabelSettings
from search.labellers.monte_carlo import EveryStepConfig, MonteCarloConfig
from search.labellers.tree_values import TreeConfig
from search.settings import SearchSettings
from search.strategies.by_name import STRATEGIES
from search.strategies.mcts.config import MCTSConfig
from trainer.labels.labelling import label_shard, merge_shards
from trainer.models.loading import save_model
from trainer.runtime.stage import StageRecord
from trainer.searching.workbench import Workbench

PROBLEMS = [make_problem((3, 4, 7), 11 + i) for i in range(5)]


@pytest.fixture(scope="module")
def policy(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy")
    save_model(*tiny_policy, path)
    return str(path)


@pytest.fixture(scope="module")
def benches(policy: str) -> dict[int, list[Workbench]]:
    """The workbenches of 1 and of 2 processes, the main one last: it puts the shares together."""

    def bench(rank: int, processes: int) -> Workbench:
        accelerator = SimpleNamespace(
            process_index=rank,
            num_processes=processes,
            is_main_process=rank == 0,
            device=torch.device("cpu"),
            wait_for_everyone=lambda: None,
        )
        return Workbench(
            policy=policy,
            reward_model=None,
            verifier="countdown",
            seed=3,
            accelerator=accelerator,
        )

    return {1: [bench(0, 1)], 2: [bench(1, 2), bench(0, 2)]}


def trees_of(
    benches: list[Workbench], problems: list[Problem], config: Any, folder: Path
) -> tuple[bytes, Any]:
    settings = SearchSettings(
        guidance="likelihood", max_step_tokens=6, max_new_tokens=20, max_depth=3
    )
    for bench in benches:
        bench.usage = type(bench.usage)()
        results = bench.search(
            problems, config, settings, folder=folder, name="trees", policy_name="p"
        )
    assert [r.problem.id for r in results] == [p.id for p in problems]
    return (folder / "trees.jsonl").read_bytes(), benches[-1].usage


# The strategy "thinking" writes words, which this vocabulary lacks. "routed" needs a router.
@pytest.mark.parametrize("strategy", [n for n in STRATEGIES if n not in ("thinking", "routed")])
def test_every_strategy(benches: Any, tmp_path: Path, strategy: str) -> None:
    config = STRATEGIES[strategy].config(budgets=(4,))
    one = trees_of(benches[1], PROBLEMS, config, tmp_path / "1")
    two = trees_of(benches[2], PROBLEMS, config, tmp_path / "2")
    assert one[0].count(b"\n") == len(PROBLEMS)
    assert one == two


def test_every_labeller(benches: Any, tmp_path: Path) -> None:
    trees_of(
        benches[1],
        PROBLEMS,
        MCTSConfig(budgets=(8,), expand_by_rollouts=True),
        tmp_path / "searched",
    )
    configs = {
        "monte_carlo": MonteCarloConfig(solutions=4),
        "every_step": EveryStepConfig(solutions=2, rollouts=4),
        "binary_search": BinarySearchConfig(
            solutions=2, rollouts=4, searches=2, search_unsolved=True
        ),
        "tree_q": TreeConfig(trees=str(tmp_path / "searched"), min_visits=1),
    }
    assert configs.keys() == LABELLERS.keys()
    settings = LabelSettings(max_new_tokens=20)
    for name, config in configs.items():
        found: list[Any] = []
        for processes in (1, 2):
            folder, record = tmp_path / f"{name}{processes}", StageRecord()
            folder.mkdir()
            for bench in benches[processes]:
                label_shard(bench, PROBLEMS, settings, config, folder)
            merge_shards(PROBLEMS, folder, record)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert set(files) == {"labels.jsonl", "costs.jsonl"}
            found.append((files, asdict(record)["metrics"], record.ledger))
        assert found[0] == found[1], name
        assert found[0][1]["labels"] > 0
