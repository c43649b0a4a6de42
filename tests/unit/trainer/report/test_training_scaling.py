"""The line of greedy accuracy over the compute of training, and the exchange with test time."""

from __future__ import annotations

import pytest

from trainer.measures.results import ScalingFit
from trainer.measures.statistics import Estimate
from trainer.report.learner_curves import TrainingCost
from trainer.report.training_scaling import training_fit


def cost(policy: str, after: str | None, flops: float) -> TrainingCost:
    return TrainingCost(
        policy=policy, after=after, training_flops=flops, training_seconds=1.0, value=0.0, low=0.0,
        high=1.0, n=40,
    )  # fmt: skip


def solves(count: int) -> list[bool]:
    return [i < count for i in range(40)]


COSTS = [cost("sft", None, 2.0), cost("side", "sft", 6.0), cost("round_1", "sft", 8.0)]
GROUPS = [str(i) for i in range(40)]
SLOPE = Estimate(value=0.05, low=0.04, high=0.06, n=40)
SEARCHES = [
    ScalingFit(policy=policy, strategy="mcts", points=3, low_flops=1.0, high_flops=4.0, slope=SLOPE)
    for policy in ("sft", "round_1")
]


def test_the_line_and_the_exchange_by_hand() -> None:
    """10 and 30 of 40 problems over two doublings: 1/4 per doubling. A policy that the last one
    does not continue has no part in it."""
    solved = {"sft": solves(10), "side": solves(0), "round_1": solves(30)}
    fit = training_fit(COSTS, solved, GROUPS, SEARCHES)
    assert fit is not None and fit.policies == ("sft", "round_1")
    assert (fit.low_flops, fit.high_flops) == (2.0, 8.0)
    assert fit.slope.value == pytest.approx(0.25) and fit.slope.low > 0
    [exchange] = fit.exchange
    assert exchange.strategy == "mcts"
    assert exchange.training_doublings == pytest.approx(0.2)  # 0.05 / 0.25


def test_without_growth_there_is_no_exchange() -> None:
    fit = training_fit(COSTS, {"sft": solves(10), "round_1": solves(10)}, GROUPS, SEARCHES)
    assert fit is not None and fit.slope.value == pytest.approx(0) and fit.exchange == ()


def test_one_policy_has_no_line() -> None:
    assert training_fit(COSTS[:1], {"sft": solves(10)}, GROUPS, SEARCHES) is None
    assert training_fit([], {}, [], []) is None
    equal = [cost("sft", None, 2.0), cost("round_1", "sft", 2.0)]
    assert training_fit(equal, {"sft": solves(1), "round_1": solves(2)}, GROUPS, []) is None
