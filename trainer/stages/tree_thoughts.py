"""The tree-thoughts stage writes search trees down as demonstrations in which a policy thinks.

The trees are those of a policy that answers at once (scripts/run_search.py, Countdown). The folder
is a data folder for SFT.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.behaviours import behaviour_rates
from data.held_out import problem_key
from data.problems import read_demonstrations, read_problems, write_demonstrations
from data.progress import reported
from data.slices import SLICES, SPLITS
from data.types import Demonstration, Problem
from search.trees.files import iterate_trees
from search.trees.operations import OperationTree, operations_of
from search.trees.thoughts import LinearisationConfig, TreeThought, thought_of_tree
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import numbered_inputs, run_stage

HELD_OUT = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class TreeThoughtsConfig:
    """Which trees become thoughts, and how many thoughts each problem gives."""

    trees: list[str]
    """Folders of the search stage, with trees of Countdown problems."""
    data: str
    """Folder of the data stage, whose train, validation and test problems are copied."""
    traces_per_problem: int = 1
    """Thoughts per problem; those that are equal to an earlier one are left out."""
    first_trace: int = 0
    """Number of a problem's first thought; 4 gives others than the first 4 of each problem."""
    keep_demonstrations: bool = False
    """Also write the demonstrations of data, after those of the trees."""

    def __post_init__(self) -> None:
        if not self.trees:
            raise ValueError("trees is empty; it must name at least one folder of the search stage")
        if self.traces_per_problem < 1:
            raise ValueError(
                f"traces_per_problem is {self.traces_per_problem}; it must be at least 1"
            )
        if self.first_trace < 0:
            raise ValueError(f"first_trace is {self.first_trace}; it must not be negative")


@dataclass(frozen=True, kw_only=True)
class _Searched:
    """A problem, and its trees that have a correct solution."""

    problem: Problem
    trees: list[OperationTree]


def run_tree_thoughts(
    runtime: RuntimeConfig, config: TreeThoughtsConfig, linearisation: LinearisationConfig
) -> None:
    """Write demonstrations.jsonl, and copy the splits of the data folder and their slices.

    A problem with several trees uses them in turn. A thought depends on the seed, its problem, its
    tree and its number alone. Raises ValueError for a tree of another task, for a tree whose
    problem belongs to validation or test, and where there is nothing to write.
    """
    inputs: dict[str, str | None] = {"data": config.data}
    inputs |= numbered_inputs("trees", config.trees)
    with run_stage("tree_thoughts", runtime, [config, linearisation], inputs) as record:
        if not is_main_process():
            return
        counts = Counter[str]()
        searched = _read_trees(config, counts)
        thoughts = _thoughts(config, linearisation, searched, runtime.seed, counts)
        kept = _demonstrations_of(config) if config.keep_demonstrations else []
        if not thoughts and not kept:
            raise ValueError(
                f"trees is {config.trees}: none of the {counts['trees']} trees gives a thought; "
                f"{counts['trees_without_solution']} have no correct solution, and most_tries is "
                f"{linearisation.most_tries}"
            )
        folder = Path(runtime.output_dir)
        for name in (*(f"{split}.jsonl" for split in SPLITS), SLICES):
            if (Path(config.data) / name).exists():
                shutil.copyfile(Path(config.data) / name, folder / name)
        write_demonstrations(folder / "demonstrations.jsonl", [*thoughts, *kept])
        record.metrics |= dict(counts)
        record.metrics |= {"thoughts": len(thoughts), "demonstrations": len(thoughts) + len(kept)}
        if thoughts:
            record.metrics |= behaviour_rates((d.problem, d.solution) for d in thoughts).metrics()


def _read_trees(config: TreeThoughtsConfig, counts: Counter[str]) -> dict[str, _Searched]:
    """The problems by id, in the order of the trees."""
    held_out = _held_out(Path(config.data))
    searched: dict[str, _Searched] = {}
    for name in ("trees", "trees_without_solution", "false_steps", "repeated_steps"):
        counts[name] = 0
    for source in config.trees:
        path = Path(source) / "trees.jsonl"
        if not path.is_file():
            raise ValueError(f"trees is {source!r}: there is no file {str(path)!r}")
        for result in iterate_trees(path):
            problem = result.problem
            try:
                tree = operations_of(result)
            except ValueError as error:
                raise ValueError(f"trees is {source!r}: {error}") from error
            split = held_out.get(problem_key(problem))
            if split is not None:
                raise ValueError(
                    f"trees is {source!r}: its problem {problem.id!r} belongs to {split} of "
                    f"{config.data!r}; nothing may be trained on it. Search problems of train"
                )
            found = searched.setdefault(problem.id, _Searched(problem=problem, trees=[]))
            if found.problem != problem:
                raise ValueError(
                    f"trees is {source!r}: its problem {problem.id!r} is another problem in an "
                    "earlier tree"
                )
            counts["trees"] += 1
            counts["false_steps"] += tree.false_steps
            counts["repeated_steps"] += tree.repeated_steps
            if tree.solutions:
                found.trees.append(tree)
            else:
                counts["trees_without_solution"] += 1
    counts["problems"] = len(searched)
    return searched


def _held_out(data: Path) -> dict[str, str]:
    """The split of every problem that measures policies, by the problem's key."""
    found: dict[str, str] = {}
    for split in HELD_OUT:
        path = data / f"{split}.jsonl"
        if not path.is_file():
            raise ValueError(
                f"data is {str(data)!r}: there is no file {str(path)!r}, so nothing says which "
                f"problems belong to {split}"
            )
        if path.stat().st_size:
            found |= {problem_key(problem): split for problem in read_problems(path)}
    return found


def _thoughts(
    config: TreeThoughtsConfig,
    linearisation: LinearisationConfig,
    searched: Mapping[str, _Searched],
    seed: int,
    counts: Counter[str],
) -> list[Demonstration]:
    """First one thought of each problem, then a second one of each, and so on."""
    found: list[Demonstration] = []
    seen: set[tuple[str, str]] = set()
    for name in ("operations", "dead_ends", "pruned_operations", "equal_thoughts", "too_long"):
        counts[name] = 0
    first = config.first_trace
    solved = [each for each in searched.values() if each.trees]
    counts["problems_solved"] = len(solved)
    for number in range(first, first + config.traces_per_problem):
        for each in reported(solved, "thoughts"):
            rng = random.Random(f"{seed} tree thought {number} {each.problem.id}")
            tree = each.trees[number % len(each.trees)]
            thought = thought_of_tree(tree, linearisation, rng)
            if thought is None:
                counts["too_long"] += 1
            elif (each.problem.id, thought.solution) in seen:
                counts["equal_thoughts"] += 1
            else:
                seen.add((each.problem.id, thought.solution))
                found.append(Demonstration(problem=each.problem, solution=thought.solution))
                _count(thought, counts)
    return found


def _count(thought: TreeThought, counts: Counter[str]) -> None:
    counts["operations"] += thought.operations
    counts["dead_ends"] += thought.dead_ends
    counts["pruned_operations"] += thought.pruned


def _demonstrations_of(config: TreeThoughtsConfig) -> Sequence[Demonstration]:
    path = Path(config.data) / "demonstrations.jsonl"
    if not path.is_file():
        raise ValueError(
            f"keep_demonstrations is true, but data is {config.data!r}: there is no file "
            f"{str(path)!r}"
        )
    return read_demonstrations(path) if path.stat().st_size else []
