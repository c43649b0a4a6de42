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
from data.types import Outcome, Problem, StopReason, Usage, Verdict
from rewards.verifiers.tally import TALLY
from search.base import Node, SearchResult
from search.labellers.binary_search import BinarySearchConfig
from search.labellers.by_name import LABELLERS, LabelSettings
from search.labellers.monte_carlo import EveryStepConfig, MonteCarloConfig
from search.labellers.solver import SolverConfig
from search.labellers.tree_solutions import TreeSolutionsConfig
from search.labellers.tree_values import TreeConfig
from search.settings import SearchSettings
from search.strategies.by_name import STRATEGIES
from search.strategies.mcts.config import MCTSConfig
from search.trees.files import append_trees
from trainer.labels.labelling import label_shard, merge_shards
from trainer.models.loading import save_model
from trainer.runtime.stage import StageRecord
from trainer.searching.workbench import Workbench

PROBLEMS = [make_problem((3, 4, 7), 11 + i) for i in range(5)]
LABELS = LabelSettings(max_new_tokens=20)


@pytest.fixture(scope="module")
def policy(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy")
    save_model(*tiny_policy, path)
    return str(path)


@pytest.fixture(scope="module")
def benches(policy: str) -> dict[int, list[Workbench]]:
    """The workbenches of 1 and of 2 processes, the main one last: it puts the shares together."""

    return {1: [one_bench(policy)], 2: [one_bench(policy, 1, 2), one_bench(policy, 0, 2)]}


def one_bench(policy: str, rank: int = 0, processes: int = 1) -> Workbench:
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


def solved_tree(bench: Workbench) -> SearchResult:
    """A tree of the first problem, 3 4 7 -> 11, with a right and a wrong solution."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for text in ("4 + 7 = 11 | 3 11", "3 + 4 = 7 | 7 7"):
        ids = (*bench.engine.encode(text), bench.engine.end_token_id)
        end = StopReason.END_OF_SOLUTION
        nodes.append(Node(id=len(nodes), parent=0, token_ids=ids, text=text, terminal=end))
    return SearchResult(
        problem=PROBLEMS[0], strategy="mcts", nodes=tuple(nodes), snapshots=(), usage=Usage()
    )


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


class DyingVerifier:
    """Counts its verdicts as others do. The process dies at the verdict number `last`."""

    def __init__(self, last: int) -> None:
        self.last = last

    def verify(self, problem: Problem, solution: str) -> Verdict:
        self.last -= 1
        if self.last < 0:
            raise KeyboardInterrupt
        return TALLY.count("code", Verdict(outcome=Outcome.WRONG), timed_out=len(solution) % 2 > 0)


def counting_bench(policy: str, last: int = 10**6) -> Workbench:
    bench = one_bench(policy)
    bench.verifier = DyingVerifier(last)
    TALLY.clear()
    return bench


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [0, 5, 8])
def test_verdicts_of_an_interrupted_search_are_counted(
    policy: str, tmp_path: Path, dies_at: int
) -> None:
    """One problem at a time: searches end before the process dies in the middle of another."""
    config = MCTSConfig(budgets=(3,), expand_by_rollouts=True, use_verifier=True)

    def attempt(bench: Workbench, folder: Path) -> dict[str, int]:
        bench.search(
            PROBLEMS, config, SearchSettings(max_new_tokens=20), folder=folder, name="trees",
            policy_name="p", max_concurrent=1,
        )  # fmt: skip
        return TALLY.snapshot()

    whole = attempt(counting_bench(policy), tmp_path / "whole")
    assert whole["code/wrong"] > 8 and "code/timed_out" in whole
    with pytest.raises(KeyboardInterrupt):
        attempt(counting_bench(policy, dies_at), tmp_path / "cut")
    assert attempt(counting_bench(policy), tmp_path / "cut") == whole
    one, two = ((tmp_path / at / "trees.jsonl").read_bytes() for at in ("whole", "cut"))
    assert one == two
    assert attempt(counting_bench(policy), tmp_path / "cut") == whole  # of the finished file


def test_verdicts_of_labels_on_disk_are_counted(policy: str, tmp_path: Path) -> None:
    config = MonteCarloConfig(solutions=3)
    label_shard(counting_bench(policy), PROBLEMS, LABELS, config, tmp_path)
    whole = TALLY.snapshot()
    assert whole["code/wrong"] > 4
    label_shard(counting_bench(policy), PROBLEMS, LABELS, config, tmp_path)
    assert TALLY.snapshot() == whole


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
    append_trees(tmp_path / "solved.jsonl", [solved_tree(benches[1][0])], "p")
    configs = {
        "monte_carlo": MonteCarloConfig(solutions=4),
        "every_step": EveryStepConfig(solutions=2, rollouts=4),
        "binary_search": BinarySearchConfig(
            solutions=2, rollouts=4, searches=2, search_unsolved=True
        ),
        "tree_q": TreeConfig(trees=str(tmp_path / "searched"), min_visits=1),
        "solver": SolverConfig(solutions=3),
        "tree_solutions": TreeSolutionsConfig(trees=str(tmp_path / "solved.jsonl")),
    }
    assert configs.keys() == LABELLERS.keys()
    for name, config in configs.items():
        found: list[Any] = []
        for processes in (1, 2):
            folder, record = tmp_path / f"{name}{processes}", StageRecord()
            folder.mkdir()
            for bench in benches[processes]:
                label_shard(bench, PROBLEMS, LABELS, config, folder)
            merge_shards(PROBLEMS, folder, record)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert set(files) == {"labels.jsonl", "costs.jsonl"}
            found.append((files, asdict(record)["metrics"], record.ledger))
        assert found[0] == found[1], name
        assert found[0][1]["labels"] > 0
