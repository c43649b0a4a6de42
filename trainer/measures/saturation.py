"""Whether a training had reached its plateau when it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence


def still_rising(updates: Sequence[int], accuracies: Sequence[float], problems: int) -> bool:
    """Whether the validation accuracy was still rising at the end of a training.

    It was if the best accuracy in the last third of the updates is more than one standard error (of
    an accuracy on `problems` problems) above the best accuracy before. `updates` are the optimizer
    steps of the evaluations, ascending; the first evaluation is before the training.
    """
    border = updates[-1] * 2 / 3
    before = [a for u, a in zip(updates, accuracies, strict=True) if u <= border]
    late = [a for u, a in zip(updates, accuracies, strict=True) if u > border]
    if not before or not late:
        return False
    best = max(before)
    return max(late) - best > math.sqrt(max(best * (1 - best), 1 / problems) / problems)
