"""Solve rates from verdicts, counted by hand, and the problems that they leave to search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data.types import Problem, StepLabels
from trainer.labels.solve_rates import check_sampled, solve_rates, still_hard
from trainer.runtime.manifests import write_manifest

END = frozenset({0})


def row(problem: str, verdict: float, times: int = 1, last: int = 0) -> StepLabels:
    return StepLabels(
        problem_id=problem, prompt=f"{problem}?", prompt_ids=(1,), completions=("a", "b"),
        completion_ids=((7,), (last,)), labels=(0.5, verdict), counts=(8, times),
        standard_errors=(0.1, 0.2),
    )  # fmt: skip


def problem(name: str) -> Problem:
    return Problem(id=name, prompt=f"{name}?", answer="")


def test_a_solution_counts_as_often_as_it_was_sampled() -> None:
    rows = [
        row("p", 1.0, times=3), row("p", 0.0), row("p", 0.0, times=4),  # 3 of 8
        row("q", 1.0), row("q", 0.0),  # 1 of 2
        row("r", 1.0, last=7), row("r", 1.0),  # the first one was cut off
        row("s", 0.0),
    ]  # fmt: skip
    assert solve_rates(rows, END) == {
        ("p", "p?"): 3 / 8, ("q", "q?"): 0.5, ("r", "r?"): 0.5, ("s", "s?"): 0.0,
    }  # fmt: skip


def test_only_hard_problems_are_left() -> None:
    rates = {("a", "a?"): 0.75, ("b", "b?"): 0.5, ("c", "c?"): 1.0, ("e", "e?"): 0.0}
    problems = [problem(name) for name in "abcde"]

    def left(most_solved: float, most: int = 9) -> tuple[str, int, int]:
        found = still_hard(problems, rates, most_solved, most)
        return "".join(p.id for p in found.problems), found.solved, found.unlabelled

    assert left(0.5) == ("be", 2, 1)  # b is at the limit, and d has no labels
    assert left(0.0) == ("e", 3, 1)
    assert left(1.0) == ("abce", 0, 1)
    assert left(0.5, most=1) == ("b", 1, 0)  # what comes after the last one is not looked at


def test_labels_of_another_problem_of_the_same_name_do_not_count() -> None:
    other = replace(row("a", 0.0), prompt="another one?")
    assert still_hard([problem("a")], solve_rates([other], END), 1.0, 9).unlabelled == 1


@pytest.mark.parametrize("method", ["binary_search", "tree_q", "tree_solutions"])
def test_methods_that_choose_by_the_verdict_say_nothing(method: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, stage="label", recipe={"method": method}, seed=1)
    said = f"whose method is '{method}': .* allowed methods: monte_carlo, every_step, solver"
    with pytest.raises(ValueError, match=said):
        check_sampled([str(tmp_path)])


def test_only_the_label_stage_says_how_it_sampled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a complete stage folder"):
        check_sampled([str(tmp_path)])
    write_manifest(tmp_path, stage="import", recipe={}, seed=1)
    with pytest.raises(ValueError, match="a folder of stage 'import': name folders of the label"):
        check_sampled([str(tmp_path)])
    write_manifest(tmp_path, stage="label", recipe={"method": "every_step"}, seed=1)
    check_sampled([str(tmp_path)])
