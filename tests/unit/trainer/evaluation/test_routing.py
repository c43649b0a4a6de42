"""A router fitted on toy arms with a known optimum."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from data.json_records import record_from_json
from search.router import Router
from search.settings import SearchSettings
from search.strategies.look import FEATURES
from trainer.evaluation.outcomes import ArmOfComparison, Outcomes, ProblemOutcomes
from trainer.evaluation.router_fit import best_fixed, fit_router, further_flops
from trainer.evaluation.routing import check_outcomes, evaluate_router
from trainer.evaluation.routing_table import routing_markdown
from trainer.measures.results import RoutingResults

ARMS = tuple(
    ArmOfComparison(
        name=name, budget=budget, strategy=strategy, config={"budgets": [budget]},
        settings=SearchSettings(), choosable=name != "reference", continues_look=name == "rounds",
    )
    for name, budget, strategy in (
        ("look", 4, "look"), ("reference", 5, "solutions"), ("rounds", 16, "solutions"),
        ("tree", 64, "mcts"),
    )
)  # fmt: skip
FLOPS = (5.0, 5.0, 20.0, 100.0)


def outcomes(split: str, n: int = 100) -> Outcomes:
    """Of four problems, two are easy (every arm is right; the samples agree), one is hard (only the
    tree is right) and one is hopeless. The agreement tells them apart."""
    kinds = {0: (1.0, (True,) * 4), 1: (1.0, (True,) * 4),
             2: (0.5, (False, False, False, True)), 3: (0.0, (False,) * 4)}  # fmt: skip
    rows: list[ProblemOutcomes] = []
    for i in range(n):
        agreement, correct = kinds[i % 4]
        rows.append(
            ProblemOutcomes(
                problem=f"{split}{i}", group=f"{split}{i}",
                # Two features, of which the second shows the hopeless ones.
                features=tuple(
                    agreement if name == "agreement" else float(agreement == 0.0)
                    if name == "finished" else 0.0
                    for name in FEATURES
                ),
                correct=correct, flops=FLOPS,
                flops_with_kept_prefixes=tuple(f / 2 for f in FLOPS),
                shared_flops=4.0, shared_flops_with_kept_prefixes=2.0,
            )
        )  # fmt: skip
    return Outcomes(split=split, arms=ARMS, problems=tuple(rows))


def fitted(data: Outcomes, **options: Any) -> Router:
    values: dict[str, Any] = {
        "strategies": [], "budgets": (10, 31, 60), "regularization": 0.01, "kept_prefixes": False,
    }  # fmt: skip
    return fit_router(data, **(values | options))


def test_the_optimum_of_toy_arms_is_found() -> None:
    fitting, test = outcomes("validation"), outcomes("test", 80)
    assert best_fixed(fitting, kept_prefixes=False) == 3  # the tree: 75 % for 100
    router = fitted(fitting)
    assert [(arm.name, arm.flops((0.0,) * 7)) for arm in router.arms] == [
        ("look", 0.0), ("rounds", pytest.approx(16.0)), ("tree", pytest.approx(100.0)),
    ]  # fmt: skip
    # Of 80 problems no pair differs: the difference is within 3.84 / 83.84 = 4.6 points.
    results = evaluate_router(router, fitting, test, margin=0.05, kept_prefixes=False)
    assert results.best_fixed.name == "tree 64" and results.best_fixed.flops == 100.0
    # 10 % leave 5 after the look. All hard problems look alike, and their tree costs 25 per problem
    # on average: at 31 % the router can pay it, for the hard problems alone.
    low, optimum, high = results.rows
    assert low.accuracy.value == 0.5 and low.flops == 5.0
    assert optimum.accuracy.value == 0.75 and optimum.flops == pytest.approx(30.0)
    assert optimum.arms == {"look 4": 0.75, "tree 64": 0.25}
    assert optimum.oracle_gap.value == 0.0 and high.accuracy.value == 0.75
    # The best fixed arm for 30 FLOPs: the cheapest of three that are right on half of the problems.
    assert optimum.fixed is not None and optimum.fixed.name == "look 4"
    assert optimum.against_fixed is not None and optimum.against_fixed.value == 0.25
    assert optimum.against_best.value == 0.0
    assert (results.matched_budget, results.matched_flops_ratio) == (31, pytest.approx(0.3))
    assert results.some_arm_right.value == 0.75
    again = record_from_json(RoutingResults, json.loads(json.dumps(asdict(results))))
    assert again == results
    text = routing_markdown(results)
    assert "for 0.30 of its FLOPs (budget 31)" in text
    assert "| 31 | look 4: 75, tree 64: 25 |" in text


def test_a_continuing_arm_does_not_pay_for_the_look_again() -> None:
    data = outcomes("validation", 4)
    assert further_flops(data, kept_prefixes=False)[0].tolist() == [0.0, 5.0, 16.0, 100.0]
    assert further_flops(data, kept_prefixes=True)[0].tolist() == [0.0, 2.5, 8.0, 50.0]


def test_strategies_and_budgets_are_checked() -> None:
    data = outcomes("validation")
    router = fitted(data, strategies=["rounds"])
    assert [arm.name for arm in router.arms] == ["look", "rounds"]
    with pytest.raises(ValueError, match=r"strategies names 'tee'.*did you mean 'tree'"):
        fitted(data, strategies=["tee"])
    with pytest.raises(ValueError, match="4 percent, but the look alone costs 5 percent"):
        fitted(data, budgets=(4,))


def test_outcomes_that_may_not_be_put_together() -> None:
    fitting, test = outcomes("validation"), outcomes("test")
    check_outcomes(fitting, test)
    with pytest.raises(ValueError, match="comparison is of test problems"):
        check_outcomes(test, fitting)
    with pytest.raises(ValueError, match="share 100 groups"):
        check_outcomes(fitting, fitting)
    other = replace(ARMS[2], settings=SearchSettings(temperature=0.5))
    with pytest.raises(ValueError, match="'rounds 16' where test_comparison has 'rounds 16', or"):
        check_outcomes(fitting, replace(test, arms=(*ARMS[:2], other, ARMS[3])))
    with pytest.raises(ValueError, match="different numbers"):
        check_outcomes(fitting, replace(test, arms=ARMS[:3]))
