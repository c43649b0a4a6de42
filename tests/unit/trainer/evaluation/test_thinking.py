"""The thoughts of a policy: rates of behaviours, and rows by budget, from trees by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.tasks.countdown import make_problem
from data.thoughts import with_thought
from data.types import ModelUsage, Outcome, StopReason, Usage, Verdict
from search.base import Node, SearchResult, Snapshot
from search.trees.files import append_trees
from trainer.evaluation.policies import accuracy_row
from trainer.evaluation.scaling import fit_of_searches
from trainer.evaluation.thinking import evaluation_metrics, measure_thoughts, with_thoughts
from trainer.measures.results import EvaluationResults

PROBLEM = make_problem((3, 4, 7, 12), 36)
ANSWER = "12 * 3 = 36 | 4 7 36"
THOUGHT = "try 12 * 3 = 36 | 4 7 36\ncheck 36 = 36"


def result(texts: list[tuple[str, int]], answers: dict[int, int]) -> SearchResult:
    """One path of (text, proposals) nodes per blank text; `answers`: the node by budget."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for text, proposals in texts:
        parent = 0 if text.startswith("<think>") else len(nodes) - 1
        ids = tuple(range(len(text.split())))
        nodes.append(
            Node(id=len(nodes), parent=parent, token_ids=ids, text=text, proposals=proposals)
        )
    for node in answers.values():
        nodes[node].terminal = StopReason.END_OF_SOLUTION
    snapshots = tuple(
        Snapshot(
            budget=budget,
            answer=ANSWER,
            answer_node=node,
            truncated=False,
            usage=Usage(policy=ModelUsage(generated_tokens=budget, flops=10.0 * budget)),
        )
        for budget, node in answers.items()
    )
    return SearchResult(
        problem=PROBLEM, strategy="thinking", nodes=tuple(nodes), snapshots=snapshots, usage=Usage()
    )


class Bench:
    """A workbench whose search gives a tree by hand."""

    class verifier:
        @staticmethod
        def verify(problem: Any, solution: str) -> Verdict:
            return Verdict(outcome=Outcome.CORRECT if solution == ANSWER else Outcome.WRONG)

    def search(self, problems: Any, config: Any, settings: Any, **_: Any) -> list[SearchResult]:
        assert (config.budgets, settings.temperature) == ((2, 9), 0.0)
        cut = [("<think> a", 1), ("</think>", 0), (ANSWER, 1)]
        natural = [("<think> a b", 1), ("wait", 0), ("c d", 1), ("</think> " + ANSWER, 1)]
        return [result(cut + natural, {2: 3, 9: 7})]


def measured(tmp_path: Path, solution: str, budgets: tuple[int, ...]) -> Any:
    greedy = result([("<think>", 1)], {1: 1})
    greedy.nodes[1].text = solution
    append_trees(tmp_path / "p_greedy.jsonl", [greedy], "p")
    bench: Any = Bench()
    return measure_thoughts(bench, "p", [PROBLEM], tmp_path, budgets)


def test_thoughts_of_a_policy_that_thinks(tmp_path: Path) -> None:
    found = measured(tmp_path, with_thought(THOUGHT, ANSWER), (2, 9))
    first, second = found.thinking
    assert (first.thinking_tokens, first.cut, first.extended) == (2, 1, 0)
    assert (second.thinking_tokens, second.cut, second.extended) == (6, 0, 1)
    assert [(row.strategy, row.budget, row.value) for row in found.accuracy] == [
        ("thinking", 2, 1.0),
        ("thinking", 9, 1.0),
    ]
    assert [fit.slope.value for fit in found.scaling] == [0.0]  # solved at both budgets
    assert found.behaviours[0].rates.shown["evaluation"] == 1.0
    empty = EvaluationResults(accuracy=(), comparisons={}, prm=None, data_making=())
    metrics = evaluation_metrics(with_thoughts(empty, [found]))
    assert metrics["p_thinking_9"] == 1.0 and metrics["p_thinking_slope_per_doubling"] == 0.0
    assert metrics["p_behaviours/correction"] == 0.0
    assert metrics["p_behaviours/completion_per_solution"] == 1.0


def test_accuracy_grows_per_doubling_of_the_flops() -> None:
    """Two problems: one is solved at every budget, and one at 80 FLOPs, not at 20. The line rises
    by 1/2 over two doublings."""
    always = result([("<think>", 1)], {2: 1, 8: 1})
    late = replace(
        always, snapshots=(replace(always.snapshots[0], answer="no"), always.snapshots[1])
    )
    bench: Any = Bench()
    rows = [accuracy_row(bench, "p", "thinking", [always, late], budget) for budget in (2, 8)]
    [fit] = fit_of_searches(bench, rows, [always, late])
    assert (fit.policy, fit.strategy, fit.points) == ("p", "thinking", 2)
    assert (fit.low_flops, fit.high_flops) == (20.0, 80.0)
    assert fit.slope.value == pytest.approx(1 / 4) and fit.slope.n == 2
    assert fit_of_searches(bench, rows[:1], [always, late]) == ()
    assert fit_of_searches(bench, [replace(row, flops=0.0) for row in rows], [always]) == ()


@pytest.mark.parametrize("budgets", [(), (2, 9)])
def test_a_direct_policy_has_no_thoughts(tmp_path: Path, budgets: tuple[int, ...]) -> None:
    found = measured(tmp_path, ANSWER, budgets)
    assert (found.behaviours, found.accuracy, found.thinking) == ((), (), ())


def test_without_budgets_only_the_behaviours_are_measured(tmp_path: Path) -> None:
    found = measured(tmp_path, with_thought(THOUGHT, ANSWER), ())
    assert (len(found.behaviours), found.thinking) == (1, ())
