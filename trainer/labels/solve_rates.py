"""How often a policy solved each problem, by the verdicts in folders of labels, and the choice of
the problems that are still hard for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.types import Problem, StepLabels
from trainer.labels.label_files import is_correct, read_labels
from trainer.runtime.manifests import read_manifest

# The methods whose rows are the solutions that the policy sampled from the problem. The rows of the
# others are chosen by their verdicts: binary_search adds wrong solutions, a tree's paths are those
# that the search liked, and tree_solutions balances right and wrong.
SAMPLING_METHODS = ("monte_carlo", "every_step", "solver")

Question = tuple[str, str]  # the id and the prompt of a problem


@dataclass(frozen=True, kw_only=True)
class StillHard:
    """The chosen problems, and how many of the others were left out before the choice was complete:
    those that were solved too often, and those without labels."""

    problems: list[Problem]
    solved: int
    unlabelled: int


def check_sampled(folders: Sequence[str]) -> None:
    """Raises ValueError for a folder that no label stage wrote, and for labels of a method that
    does not keep the policy's samples as they are."""
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest["stage"] != "label":
            raise ValueError(
                f"labels has {folder!r}, a folder of stage {manifest['stage']!r}: name folders of "
                "the label stage"
            )
        method = manifest["recipe"]["method"]
        if method not in SAMPLING_METHODS:
            raise ValueError(
                f"labels has {folder!r}, whose method is {method!r}: its solutions are not those "
                "that the policy sampled, so they do not say how often it solves a problem; "
                f"allowed methods: {', '.join(SAMPLING_METHODS)}"
            )


def read_solve_rates(
    folders: Sequence[str], end_token_ids: frozenset[int]
) -> dict[Question, float]:
    """The solve rates in the labels.jsonl of all folders together. Raises ValueError for a bad row,
    with file, line and reason."""
    rows = (row for folder in folders for row in read_labels(Path(folder) / "labels.jsonl"))
    return solve_rates(rows, end_token_ids)


def solve_rates(rows: Iterable[StepLabels], end_token_ids: frozenset[int]) -> dict[Question, float]:
    """The share of right solutions among those of each problem. A solution counts as often as the
    count of its last label says. With the default labels of monte_carlo this is how often it was
    sampled; other labels have the count 1 there, so that equal samples are one solution."""
    right: dict[Question, int] = {}
    total: dict[Question, int] = {}
    for row in rows:
        question = (row.problem_id, row.prompt)
        times = row.counts[-1]
        total[question] = total.get(question, 0) + times
        right[question] = right.get(question, 0) + times * is_correct(row, end_token_ids)
    return {question: right[question] / total[question] for question in total}


def still_hard(
    problems: Sequence[Problem], rates: Mapping[Question, float], most_solved: float, most: int
) -> StillHard:
    """The first `most` problems whose solve rate is at most `most_solved`, in order. A problem
    without a rate is left out: nobody knows whether it is hard."""
    chosen: list[Problem] = []
    solved = unlabelled = 0
    for problem in problems:
        if len(chosen) == most:
            break
        rate = rates.get((problem.id, problem.prompt))
        if rate is None:
            unlabelled += 1
        elif rate > most_solved:
            solved += 1
        else:
            chosen.append(problem)
    return StillHard(problems=chosen, solved=solved, unlabelled=unlabelled)
