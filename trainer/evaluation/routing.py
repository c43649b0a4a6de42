"""What a fitted router reaches on test problems, read from what every arm did there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.router import Router
from trainer.evaluation.outcomes import ArmOfComparison, Outcomes
from trainer.evaluation.router_fit import (
    best_arm,
    best_fixed,
    estimates,
    full_flops,
    further_flops,
)
from trainer.measures.results import FixedArm, RoutingResults, RoutingRow
from trainer.measures.routing import choose_arms, chosen, multiplier_for
from trainer.measures.statistics import Estimate, accuracy, paired_difference


def check_outcomes(fitting: Outcomes, test: Outcomes) -> None:
    """Raises ValueError where a router may not be fitted on the one and tested on the other."""
    if fitting.split == "test":
        raise ValueError("comparison is of test problems: fit a router on validation problems")
    for ours, theirs in zip(fitting.arms, test.arms, strict=False):
        if ours != theirs:
            raise ValueError(
                f"comparison has {arm_name(ours)!r} where test_comparison has "
                f"{arm_name(theirs)!r}, or they have other settings: compare the same strategies"
            )
    if len(fitting.arms) != len(test.arms):
        raise ValueError("comparison and test_comparison have different numbers of strategies")
    shared = {row.group for row in fitting.problems} & {row.group for row in test.problems}
    if shared:
        raise ValueError(
            f"comparison and test_comparison share {len(shared)} groups of problems: a router must "
            "be tested on others than it was fitted on"
        )


def evaluate_router(
    router: Router, fitting: Outcomes, test: Outcomes, *, margin: float, kept_prefixes: bool
) -> RoutingResults:
    """Every number is of the test problems; fixed arms are chosen by their accuracy on the fitting
    problems. The oracle chooses among the router's arms with the truth and with the FLOPs that each
    arm costs; it looks too."""
    tester = _Tester(router, fitting, test, kept_prefixes)
    rows = tuple(tester.row(level.budget, level.multiplier) for level in router.budgets)
    best = tester.fixed(best_fixed(fitting, kept_prefixes=kept_prefixes))
    matched = [row for row in rows if row.against_best.low >= -margin]
    cheapest = min(matched, key=lambda row: row.flops, default=None)
    return RoutingResults(
        split=test.split,
        fitted_on=len(fitting.problems),
        problems=len(test.problems),
        best_fixed=best,
        some_arm_right=accuracy([bool(r) for r in tester.right.any(axis=1)], tester.groups),
        rows=rows,
        margin=margin,
        matched_budget=cheapest.budget if cheapest else None,
        matched_flops_ratio=cheapest.flops / best.flops if cheapest else None,
    )


class _Tester:
    """The test problems' outcomes as arrays (P problems, A arms of the router)."""

    def __init__(
        self, router: Router, fitting: Outcomes, test: Outcomes, kept_prefixes: bool
    ) -> None:
        self.router, self.fitting, self.test = router, fitting, test
        self.kept_prefixes = kept_prefixes
        self.groups = [row.group for row in test.problems]
        where = {(arm.name, arm.budget): i for i, arm in enumerate(test.arms)}
        index = [where[arm.name, arm.budget] for arm in router.arms]
        self.all_right = np.array([row.correct for row in test.problems])
        self.all_flops = full_flops(test, kept_prefixes=kept_prefixes)
        self.right: Any = self.all_right[:, index]
        self.further: Any = further_flops(test, kept_prefixes=kept_prefixes)[:, index]
        self.look = self.all_flops[:, where[router.arms[0].name, router.arms[0].budget]]
        self.estimates = estimates(router, test)
        self.best = best_fixed(fitting, kept_prefixes=kept_prefixes)

    def row(self, budget: int, multiplier: float) -> RoutingRow:
        arms = choose_arms(*self.estimates, multiplier)
        right = _outcomes(chosen(self.right, arms))
        after = float(chosen(self.further, arms).mean())
        flops = after + float(self.look.mean())
        fair = multiplier_for(self.right, self.further, after)
        truth = choose_arms(self.right, self.further, fair)
        oracle = _outcomes(chosen(self.right, truth))
        means = self.all_flops.mean(axis=0)
        affordable = [i for i, mean in enumerate(means) if mean <= flops]
        fixed = (
            best_arm(self.fitting, affordable, kept_prefixes=self.kept_prefixes)
            if affordable
            else None
        )
        counts = Counter(int(arm) for arm in arms)
        return RoutingRow(
            budget=budget,
            flops=flops,
            look_flops=float(self.look.mean()),
            accuracy=accuracy(right, self.groups),
            fixed=None if fixed is None else self.fixed(fixed),
            against_fixed=None if fixed is None else self.against(right, fixed),
            against_best=self.against(right, self.best),
            oracle=accuracy(oracle, self.groups),
            oracle_gap=paired_difference(oracle, right, self.groups),
            arms={
                f"{self.router.arms[arm].name} {self.router.arms[arm].budget}": n / len(right)
                for arm, n in sorted(counts.items())
            },
        )

    def against(self, right: Sequence[bool], arm: int) -> Estimate:
        return paired_difference(right, _outcomes(self.all_right[:, arm]), self.groups)

    def fixed(self, arm: int) -> FixedArm:
        return FixedArm(
            name=arm_name(self.test.arms[arm]),
            flops=float(self.all_flops[:, arm].mean()),
            accuracy=accuracy(_outcomes(self.all_right[:, arm]), self.groups),
        )


def arm_name(arm: ArmOfComparison) -> str:
    return f"{arm.name} {arm.budget}"


def _outcomes(values_P: Any) -> list[bool]:
    return [bool(value) for value in values_P]
