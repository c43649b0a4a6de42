"""The number of each verifier's verdicts in a stage, over all ranks and all its attempts.

A process counts its verdicts in `TALLY`. What an interrupted attempt counted is not lost: search
trees hold the counts of their search, and checkpoints those of the training before them.
"""

from __future__ import annotations

from collections import Counter

from rewards.verifiers.tally import TALLY


def verdicts_of_all_ranks() -> dict[str, int]:
    """Counts by "<verifier>/<outcome>" and "<verifier>/timed_out", summed over the ranks. Every
    rank must call this function."""
    from accelerate.utils import gather_object

    total: Counter[str] = Counter()
    for counts in gather_object([TALLY.snapshot()]):
        total.update(counts)
    return dict(sorted(total.items()))
