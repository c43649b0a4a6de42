"""The comparison of strategies: strategies as recipes give them, growth and matching by hand."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from data.json_records import record_from_json
from data.types import Problem
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from trainer.evaluation.strategies import (
    Measured,
    at_equal_flops,
    fine_grid,
    growth_of,
    match,
    read_strategy,
)
from trainer.evaluation.strategy_tables import comparison_markdown
from trainer.measures.results import AccuracyRow, EqualFlopsRow, Growth, Match, StrategyComparison
from trainer.measures.statistics import Estimate, adjust_holm
from trainer.stages.compare import CompareConfig


def test_arms_take_keys_of_the_strategy_and_of_the_settings() -> None:
    common = SearchSettings(temperature=0.7)
    values = {
        "strategy": "mcts",
        "budgets": [2, 8],
        "expand_by_rollouts": True,
        "guidance": "likelihood",
    }
    arm = read_strategy("tree", values, common)
    assert arm.searches == (MCTSConfig(budgets=(2, 8), expand_by_rollouts=True),)
    assert arm.settings == SearchSettings(temperature=0.7, guidance="likelihood")
    again = read_strategy("tree", values | {"selection": "gumbel", "rerun": True}, common)
    assert [search.budgets for search in again.searches] == [(2,), (8,)]
    assert read_strategy("vote", {"strategy": "solutions", "budgets": [4]}, common).searches == (
        SolutionsConfig(budgets=(4,)),
    )
    for chosen in ("judge", ""):
        judged = replace(common, answer_guidance="judge" if not chosen else "")
        own = read_strategy("tree", values | {"answer_guidance": chosen}, judged)
        assert own.settings.answer_guidance == chosen


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strategy": "mtcs"}, "strategy 'x': strategy is 'mtcs'"),
        ({"strategy": "mcts", "budgets": [1], "proposal": 3}, "did you mean 'proposals'"),
        ({"strategy": "mcts", "budgets": [1], "proposals": "3"}, "proposals must be an int"),
        ({"strategy": "mcts", "budgets": [2, 1]}, "ascending"),
        ({"strategy": "beam", "budgets": [2, 4]}, "one budget"),
        ({"strategy": "mcts", "budgets": [1], "guidance": "x"}, "guidance is 'x'"),
        ({}, "strategy is ''"),
        ({"strategy": "mcts", "rerun": True}, "not empty"),
        ({"strategy": "mcts", "budgets": [2], "use_verifier": True}, "must hold 'oracle'"),
        ({"strategy": "solutions", "budgets": [2], "answer": "oracle"}, "must hold 'oracle'"),
    ],
)
def test_a_wrong_strategy_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_strategy("x", values, SearchSettings())


def test_wrong_comparisons_are_named() -> None:
    fields: dict[str, Any] = {"policy": "p", "reward_model": "r", "data": "d", "verifier": "math"}
    arms = {"tree": {"strategy": "mcts", "budgets": [2]}}
    for wrong, said in (
        ({"strategies_tested_for_growth": ["tre"]}, "did you mean 'tree'"),
        ({"target_best_of_n": 5}, "target_best_of_n is 5"),
        ({"strategies_tested_for_growth": ["tree"]}, "fewer than two budgets"),
    ):
        with pytest.raises(ValueError, match=said):
            CompareConfig(**fields, strategies=arms, **wrong)
    with pytest.raises(ValueError, match="the reference's name"):
        CompareConfig(**fields, strategies={"best_of_n": {}})


PROBLEMS = [Problem(id=str(i), prompt="", answer="x") for i in range(4)]


def measured(flops: dict[int, float], correct: dict[int, list[bool]]) -> Measured:
    rows = {
        budget: AccuracyRow(
            policy="p", strategy="arm", budget=budget, n=4, value=sum(correct[budget]) / 4, low=0.0,
            high=1.0, format_rate=1.0, truncation_rate=0.0, generated_tokens=1.0,
            policy_flops=spent, reward_flops=0.0, flops=spent,
        )
        for budget, spent in flops.items()
    }  # fmt: skip
    return Measured(rows=rows, correct=correct, usage={})


T, F = True, False


def test_growth_by_hand() -> None:
    arm = measured(
        {2: 1.0, 8: 4.0, 32: 16.0},
        {2: [F, F, F, T], 8: [T, T, F, T], 32: [T, T, T, F]},
    )
    growth = growth_of("arm", arm, PROBLEMS)
    assert growth.last_minus_first.value == pytest.approx(0.5)
    # accuracies 1/4, 3/4, 3/4 at log2 1, 3, 5: slope = (-2 x 1/4 + 2 x 3/4) / 8 = 1/8
    assert growth.slope.value == pytest.approx(1 / 8)
    # per problem (1 + 1 + 1 - 1) x 2 / 8: 1/4, 1/4, 1/4, -1/4; variance of the mean 1/4 / 4 / 4
    half = 1.959964 * math.sqrt(0.0625 / 4)
    assert growth.slope.high - growth.slope.value == pytest.approx(half)
    # 8 after 2: no losses; 32 after 8: one lost, one won: P(at least 1 of 2) = 3/4; Holm doubles
    assert growth.adjacent_drops == pytest.approx((1.0, 1.0))


def test_holm_by_hand() -> None:
    # sorted 0.01 x 3, 0.02 x 2, 0.5 x 1
    assert adjust_holm([0.02, 0.5, 0.01]) == pytest.approx([0.04, 0.5, 0.03])
    assert adjust_holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])  # never below an earlier one
    assert adjust_holm([]) == []


def test_equal_flops_and_matching() -> None:
    reference = measured({1: 1.0, 4: 4.0, 16: 16.0}, {1: [F] * 4, 4: [T, F, F, F], 16: [T] * 4})
    arm = measured({2: 3.0, 8: 5.0, 32: 40.0}, {2: [F] * 4, 8: [T] * 4, 32: [T] * 4})
    found = at_equal_flops(arm, reference, PROBLEMS)
    assert found[2].difference == pytest.approx(-0.25)  # against best of 4
    assert found[8].difference == pytest.approx(0.75)
    assert "best of 16 (0.40 of the FLOPs)" in found[32].metric
    # With kept prefixes the arm's largest budget costs 40 - 35 = 5: best of 4 is nearest.
    arm.rows[32] = replace(arm.rows[32], repeated_flops=35.0)
    kept = at_equal_flops(arm, reference, PROBLEMS, kept_prefixes=True)
    assert "best of 4 (0.80 of the FLOPs)" in kept[32].metric
    assert kept[2] == found[2]
    # No pair differs: of 4 problems, the difference is within 3.84 / 7.84 = 0.49.
    assert match("arm", arm, reference, 16, 0.48, PROBLEMS).budget is None
    matched = match("arm", arm, reference, 16, 0.5, PROBLEMS)
    assert (matched.budget, matched.flops_ratio) == (8, 5 / 16)
    never = measured({2: 3.0}, {2: [F] * 4})
    assert match("arm", never, reference, 16, 0.5, PROBLEMS).budget is None


def test_the_table_shows_every_row() -> None:
    row = AccuracyRow(
        policy="p", strategy="arm", budget=2, n=4, value=0.5, low=0.1, high=0.9, format_rate=1.0,
        truncation_rate=0.0, generated_tokens=7.0, policy_flops=2e6, reward_flops=0.0, flops=2e6,
        repeated_flops=1e6,
    )  # fmt: skip
    difference = EqualFlopsRow(
        strategy="arm", budget=2, difference=0.25, low=-0.1, high=0.6, n=4,
        metric="against best of 4",
    )  # fmt: skip
    kept = replace(difference, difference=0.5, metric="against best of 2", kept_prefixes=True)
    estimate = Estimate(value=0.5, low=0.25, high=0.75, n=4)
    growth = Growth(
        strategy="arm", budgets=(2, 4, 8), last_minus_first=estimate, slope=estimate,
        adjacent_drops=(0.5, 1.0),
    )  # fmt: skip
    comparison = StrategyComparison(
        split="test", accuracy=(row,), equal_flops=(difference, kept), growth=(growth,),
        matches=(Match(strategy="arm", budget=None, flops_ratio=None),), margin=0.02,
        target_best_of_n=64,
    )  # fmt: skip
    assert (
        record_from_json(StrategyComparison, json.loads(json.dumps(asdict(comparison))))
        == comparison
    )
    text = comparison_markdown(comparison)
    assert (
        "| arm | 2 | 50.0 [10.0, 90.0] | 2 | 1 | 7 | +25.0 [-10.0, +60.0] against best of 4 |"
        " +50.0 [-10.0, +60.0] against best of 2 |" in text
    )
    assert "| arm | +50.0 [+25.0, +75.0] | +50.0 [+25.0, +75.0] | 0.5, 1 |" in text
    assert "| arm | none |  |" in text


def test_the_reference_is_read_at_every_n_within_4_percent() -> None:
    assert fine_grid((2, 8)) == (1, 2, 3, 4, 5, 6, 7, 8)
    grid = fine_grid((9, 36, 512))
    assert {9, 36, 512} <= set(grid) and max(grid) == 512 and len(grid) < 120
    assert all(b <= max(a + 1, 1.04 * a) for a, b in itertools.pairwise(grid))
