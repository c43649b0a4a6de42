"""How accuracy grows with compute: a line over the logarithm of the compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.measures.statistics import Estimate, mean_estimate


def slope_per_doubling(
    compute: Sequence[float],
    correct: Sequence[Sequence[bool]],
    groups: Sequence[str] | None = None,
) -> Estimate:
    """The slope of the least-squares line of accuracy over log2(compute), with the normal 95 %
    interval and groups as clusters. `correct` says for each compute which problems were solved, in
    the same order of problems. The interval covers the choice of problems, not a training's seed.

    The slope is a weighted sum of the accuracies, sum over b of w_b accuracy_b with w_b = (x_b -
    mean x) / sum of (x - mean x)^2. So it is the mean over problems of the same sum of their
    outcomes, and the interval is that of this mean. Raises ValueError if no two computes differ.
    """
    x = np.log2(np.asarray(compute, dtype=float))
    away = x - x.mean()
    if not (away**2).sum() > 0:
        raise ValueError(f"a slope needs at least two different computes, got {list(compute)}")
    weights = away / (away**2).sum()
    per_problem = weights @ np.asarray(correct, dtype=float)
    return mean_estimate(per_problem.tolist(), groups)
