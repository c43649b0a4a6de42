"""How greedy accuracy grows with the compute of training, and what a doubling of test-time compute
is worth in doublings of training compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.measures.results import ScalingFit
from trainer.measures.scaling import slope_per_doubling
from trainer.measures.statistics import Estimate
from trainer.report.learner_curves import TrainingCost


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A doubling of a strategy's FLOPs per problem brings as much accuracy as this many doublings
    of the training FLOPs, by the slopes of the two lines: their ratio, without an interval."""

    strategy: str
    training_doublings: float


@dataclass(frozen=True, kw_only=True)
class TrainingFit:
    """The least-squares line of greedy accuracy over log2(training FLOPs), over the policies of a
    run that continue one another. `slope` is in accuracy per doubling; its interval covers the
    choice of problems, not the training's seed. `exchange` has the last policy's strategies; it is
    empty unless the slope's interval is above 0."""

    policies: tuple[str, ...]
    low_flops: float
    high_flops: float
    slope: Estimate
    exchange: tuple[Exchange, ...]


def training_fit(
    costs: Sequence[TrainingCost],
    solved: Mapping[str, Sequence[bool]],
    groups: Sequence[str],
    scaling: Sequence[ScalingFit],
) -> TrainingFit | None:
    """The fit over the last of the `costs` and the policies that led to it. `solved` says for each
    policy which problems its greedy answers solve. None if fewer than two of the policies are in
    `solved`, or none differ in their FLOPs."""
    chain = [cost for cost in _chain(costs) if cost.policy in solved]
    flops = [cost.training_flops for cost in chain]
    if len(set(flops)) < 2 or min(flops) <= 0:
        return None
    slope = slope_per_doubling(flops, [solved[cost.policy] for cost in chain], groups)
    return TrainingFit(
        policies=tuple(cost.policy for cost in chain),
        low_flops=min(flops),
        high_flops=max(flops),
        slope=slope,
        exchange=tuple(
            Exchange(strategy=fit.strategy, training_doublings=fit.slope.value / slope.value)
            for fit in scaling
            if fit.policy == chain[-1].policy and slope.low > 0
        ),
    )


def _chain(costs: Sequence[TrainingCost]) -> list[TrainingCost]:
    """The last policy and those that it continues, from first to last."""
    by_name, found = {cost.policy: cost for cost in costs}, list[TrainingCost]()
    name = costs[-1].policy if costs else None
    while name is not None and name in by_name:
        found.append(by_name[name])
        name = by_name[name].after
    return found[::-1]
