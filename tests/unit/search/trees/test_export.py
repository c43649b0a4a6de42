"""Training data from one small tree, computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from data.types import Outcome, Problem, StopReason, Usage, Verdict
from search.base import Node, SearchResult
from search.trees.training_rows import (
    best_paths,
    by_solve_rate,
    step_preferences,
    step_value_labels,
    visit_weighted_paths,
)

END = StopReason.END_OF_SOLUTION


def tree() -> SearchResult:
    """Below the root are a (8 visits, Q 0.75) with ax (6, 0.9) and ay (2, 0.3), and b (2, 0.1) with
    bz (1, 0.1). The rollout c is beside the tree."""
    rows: list[tuple[int, str, int, float, StopReason | None]] = [
        (0, "a", 8, 0.75, None), (0, "b", 2, 0.1, None), (1, "x", 6, 0.9, END),
        (1, "y", 2, 0.3, END), (2, "z", 1, 0.1, END),
    ]  # fmt: skip
    nodes = [Node(id=0, parent=-1, token_ids=(), text="", visit_count=10)]
    for parent, text, visits, q, terminal in rows:
        node = Node(
            id=len(nodes), parent=parent, token_ids=(ord(text),), text=text, visit_count=visits,
            value_sum=q * visits, score=q, terminal=terminal,
        )  # fmt: skip
        nodes.append(node)
        nodes[parent].children.append(node.id)
    nodes.append(Node(id=6, parent=0, token_ids=(9,), text="c", terminal=END, score=0.2))
    problem = Problem(id="p", prompt="?", answer="ay")
    return SearchResult(
        problem=problem, strategy="mcts", nodes=tuple(nodes), snapshots=(), usage=Usage()
    )


def verify(problem: Problem, text: str) -> Verdict:
    right = text in (problem.answer, "c")
    return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


def test_the_best_correct_path() -> None:
    [row] = best_paths([tree()], verify)
    assert (row.completion, row.weight, row.completion_ids) == ("ay", 1.0, (ord("a"), ord("y")))


def test_paths_weighted_by_visits() -> None:
    rows = {row.completion: row.weight for row in visit_weighted_paths([tree()])}
    # 8/10 x 6/8, 8/10 x 2/8, 2/10 x 1/1; nodes beside the tree have no visits
    assert rows == pytest.approx({"ax": 0.6, "ay": 0.2, "bz": 0.2})


def test_preferences_between_clearly_different_siblings() -> None:
    rows = list(step_preferences([tree()], min_gap=0.5, min_visits=2))
    assert [(r.prompt, r.chosen, r.rejected) for r in rows] == [("?", "a", "b"), ("?a", "x", "y")]
    assert (rows[0].chosen_value, rows[0].rejected_value) == pytest.approx((0.75, 0.1))
    ids = [(r.problem_prompt, r.prefix_ids, r.chosen_ids, r.rejected_ids) for r in rows]
    assert ids == [("?", (), (97,), (98,)), ("?", (97,), (120,), (121,))]
    assert [r.prompt for r in step_preferences([tree()], min_gap=0.62, min_visits=2)] == ["?"]
    assert not list(step_preferences([tree()], min_gap=0.0, min_visits=7))


def test_values_as_soft_step_labels() -> None:
    rows = list(step_value_labels([tree()], lambda text: tuple(map(ord, text)), min_visits=2))
    assert [row.completions for row in rows] == [("a", "x"), ("a", "y"), ("b", "z")]
    assert rows[0].labels == pytest.approx((0.75, 0.9)) and rows[0].counts == (8, 6)
    # Laplace's rule for 6 of 8: p = 7/10
    assert rows[0].standard_errors[0] == pytest.approx(math.sqrt(0.7 * 0.3 / 8))
    assert rows[0].prompt_ids == (ord("?"),)
    # The end of a solution always counts. An open step counts only with enough visits.
    result = tree()
    result.nodes[5].terminal = None
    rows = list(step_value_labels([result], lambda text: (), min_visits=2))
    assert [row.completions for row in rows] == [("b",), ("a", "x"), ("a", "y")]


def test_problems_by_solve_rate() -> None:
    # ax, ay, bz and c are the distinct solutions; ay and c are correct
    [row] = by_solve_rate([tree()], verify, low=0.25, high=0.75)
    assert (row.solve_rate, row.solutions, row.problem.id) == (0.5, 4, "p")
    assert not list(by_solve_rate([tree()], verify, low=0.6, high=1.0))


def test_an_unsearched_problem_gives_no_rows() -> None:
    empty: Any = SearchResult(
        problem=Problem(id="p", prompt="", answer="x"), strategy="", snapshots=(), usage=Usage(),
        nodes=(Node(id=0, parent=-1, token_ids=(), text=""),),
    )  # fmt: skip
    assert not list(best_paths([empty], verify)) and not list(visit_weighted_paths([empty]))
    assert not list(step_preferences([empty], min_gap=0.1, min_visits=1))
    assert not list(step_value_labels([empty], lambda text: (), min_visits=1))
