"""Preference pairs of steps and of solutions from a small tree and from a few labels, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from data.types import Outcome, Problem, StepLabels, StopReason, Usage, Verdict
from search.base import Node, SearchResult
from search.trees.preference_pairs import (
    PairRules,
    pairs_of_labels,
    pairs_of_solutions,
    pairs_of_steps,
)

END = StopReason.END_OF_SOLUTION
EOS = 1
RIGHT = {"aR", "bR"}
# (parent, text, visits, mean value, how it ended); c's solution is a rollout beside the tree
ROWS: list[tuple[int, str, int, float, StopReason | None]] = [
    (0, "a", 8, 0.9, None), (0, "b", 6, 0.7, None), (0, "c", 5, 0.2, None),
    (0, "d", 4, 0.1, None), (0, "e", 4, 0.0, StopReason.LENGTH),
    (1, "R", 6, 1.0, END), (1, "W", 5, 0.3, END), (2, "R", 3, 1.0, END), (4, "V", 2, 0.0, END),
    (0, "f", 4, 0.95, None), (0, "g", 4, 0.05, None), (10, "Z", 3, 0.9, END),
]  # fmt: skip


def ids_of(text: str, ended: bool = False) -> tuple[int, ...]:
    return (*map(ord, text), EOS) if ended else tuple(map(ord, text))


def tree() -> SearchResult:
    nodes = [Node(id=0, parent=-1, token_ids=(), text="", visit_count=30)]
    for parent, text, visits, q, terminal in ROWS:
        node = Node(
            id=len(nodes), parent=parent, token_ids=ids_of(text, terminal is END), text=text,
            visit_count=visits, value_sum=q * visits, terminal=terminal,
        )  # fmt: skip
        nodes.append(node)
        nodes[parent].children.append(node.id)
    nodes.append(
        Node(id=13, parent=3, token_ids=ids_of("X", True), text="X", terminal=END, score=0.4)
    )
    return SearchResult(
        problem=Problem(id="p", prompt="?", answer=""), strategy="mcts", nodes=tuple(nodes),
        snapshots=(), usage=Usage(),
    )  # fmt: skip


def verify(_: Problem, text: str) -> Verdict:
    return Verdict(outcome=Outcome.CORRECT if text in RIGHT else Outcome.WRONG)


def of_steps(**rules: Any) -> list[tuple[str, str, str]]:
    pairs = pairs_of_steps([tree()], ids_of, verify, PairRules(**rules))
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]


def test_the_highest_that_lead_to_a_right_answer_against_the_lowest_that_lead_to_a_wrong_one() -> (
    None
):
    # There are right solutions below a and b, and wrong ones below a, c (its rollout), d and f. e
    # was cut off, and g has no value. The ends of solutions (R, W) are not open steps.
    pairs = list(pairs_of_steps([tree()], ids_of, verify, PairRules()))
    assert [(p.chosen, p.rejected) for p in pairs] == [
        ("a", "d"), ("a", "c"), ("b", "d"), ("b", "c"),
    ]  # fmt: skip
    assert {p.weight for p in pairs} == {0.25}  # 1/(2 x 2), as in the paper
    assert (pairs[0].chosen_value, pairs[0].rejected_value) == pytest.approx((0.9, 0.1))
    assert pairs[0].prompt_token_ids == ids_of("?") and pairs[0].chosen_token_ids == ids_of("a")
    assert of_steps(per_side=1) == [("?", "a", "d")]
    # 0.7 apart: of 0.9 - 0.1, 0.9 - 0.2, 0.7 - 0.1 and 0.7 - 0.2 the first two (within rounding)
    assert of_steps(min_gap=0.69) == [("?", "a", "d"), ("?", "a", "c")]
    # With at least 5 visits, d is out. b has no wrong solution. a has one, but a is no pair with a.
    assert of_steps(min_visits=5) == [("?", "a", "c"), ("?", "b", "c")]
    assert ("?", "b", "a") not in of_steps(per_side=3, min_gap=0.0)


def test_solutions_to_one_problem_need_share_no_step() -> None:
    pairs = list(pairs_of_solutions([tree()], ids_of, verify, PairRules()))
    # Means: aR (0.9 + 1) / 2, bR 0.85; dV 0.05, cX (0.2 + 0.4) / 2 = 0.3, aW 0.6
    assert [(p.chosen, p.rejected) for p in pairs] == [
        ("aR", "dV"), ("aR", "cX"), ("bR", "dV"), ("bR", "cX"),
    ]  # fmt: skip
    assert (pairs[0].chosen_value, pairs[0].rejected_value) == pytest.approx((0.95, 0.05))
    assert pairs[0].chosen_token_ids == ids_of("aR", True) and pairs[0].prompt == "?"
    assert {p.weight for p in pairs} == {0.25}


def labels(problem: str, steps: str, values: tuple[float, ...], count: int = 8) -> StepLabels:
    """Label rows with one letter per step. A capital is a last step, which ends with the end
    token."""
    return StepLabels(
        problem_id=problem, prompt="?", prompt_ids=ids_of("?"), completions=tuple(steps),
        completion_ids=tuple(ids_of(s, s.isupper()) for s in steps), labels=values,
        counts=(count,) * len(steps), standard_errors=(0.1,) * len(steps),
    )  # fmt: skip


def test_pairs_of_labels_come_from_shared_prefixes() -> None:
    rows = [
        labels("p", "axR", (0.8, 0.9, 1.0)), labels("p", "ayW", (0.6, 0.25, 0.0)),
        labels("p", "bW", (0.3, 0.0)), labels("q", "cW", (0.0, 0.0)),
        labels("q", "d", (1.0,)), labels("q", "e", (0.9,), count=3),
    ]  # fmt: skip
    pairs = list(pairs_of_labels(rows, frozenset({EOS}), PairRules(per_side=1)))
    assert [(p.problem_id, p.prompt, p.chosen, p.rejected) for p in pairs] == [
        ("p", "?", "a", "b"), ("p", "?a", "x", "y"), ("p", "?", "axR", "bW"), ("q", "?", "d", "c"),
    ]  # fmt: skip
    # a has two labels; the value of a solution is the mean of its labels
    assert pairs[0].chosen_value == pytest.approx(0.7)
    assert (pairs[2].chosen_value, pairs[2].rejected_value) == pytest.approx((0.9, 0.15))
    assert pairs[1].prompt_token_ids == ids_of("?a")
    assert pairs[2].chosen_token_ids == ids_of("axR", True)
    # A step that shares a label with the next step makes no pair with the first step alone.
    joint = labels("p", "ay", (0.9, 0.9))
    joint = StepLabels(
        **{
            **{name: getattr(joint, name) for name in joint.__dataclass_fields__},
            "completions": ("ay",), "completion_ids": (ids_of("ay"),), "labels": (0.1,),
            "counts": (0,), "standard_errors": (0.1,),
        }
    )  # fmt: skip
    single = labels("p", "a", (0.9,))
    assert not list(pairs_of_labels([single, joint], frozenset({EOS}), PairRules()))
    # Two steps with equal values make no pair.
    tied = [labels("p", "a", (0.5,)), labels("p", "b", (0.5,))]
    assert not list(pairs_of_labels(tied, frozenset({EOS}), PairRules(min_gap=0.0)))
    # A person's label does not come from rollouts.
    people = [labels("p", "a", (1.0,), count=0), labels("p", "b", (0.0,), count=0)]
    assert [p.chosen for p in pairs_of_labels(people, frozenset({EOS}), PairRules())] == ["a"]


def test_pairs_within_a_problem_compare_beginnings_of_equally_many_steps() -> None:
    rows = [
        labels("p", "axR", (0.8, 0.9, 1.0)), labels("p", "ayW", (0.6, 0.25, 0.0)),
        labels("p", "bzW", (0.3, 0.1, 0.0)), labels("q", "cW", (0.0, 0.0)),
    ]  # fmt: skip
    rules = PairRules(per_side=1, within="problem")
    pairs = list(pairs_of_labels(rows, frozenset({EOS}), rules))
    # After one step a (0.7) and b (0.3), after two ax (0.9) and bz (0.1), whose prefixes differ.
    assert [(p.problem_id, p.prompt, p.chosen, p.rejected) for p in pairs] == [
        ("p", "?", "a", "b"), ("p", "?", "ax", "bz"), ("p", "?", "axR", "bzW"),
    ]  # fmt: skip
    assert pairs[1].chosen_token_ids == ids_of("ax") and pairs[1].weight == 1
    assert pairs[1].prompt_token_ids == ids_of("?")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"within": "depth"}, "pairs_within is 'depth'; allowed: prefix, problem"),
        ({"per_side": 0}, "per_side is 0; it must be at least 1"),
        ({"min_visits": 0}, "min_visits is 0; it must be at least 1"),
        ({"min_gap": 1.5}, "min_gap is 1.5; it must be in"),
    ],
)
def test_rules_are_checked(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairRules(**rules)
