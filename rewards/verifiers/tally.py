"""How often verifiers said what in this process: for the trainer's metrics, never for a reward."""

from __future__ import annotations

import threading
from collections import Counter

from data.types import Verdict

TIMED_OUT = "timed_out"


class VerdictTally:
    """Counts by "<verifier>/<outcome>" and "<verifier>/timed_out". Any thread may count."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, verifier: str, verdict: Verdict, *, timed_out: bool = False) -> Verdict:
        """Count and return the verdict."""
        with self._lock:
            self._counts[f"{verifier}/{verdict.outcome.value}"] += 1
            self._counts[f"{verifier}/{TIMED_OUT}"] += timed_out
        return verdict

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


TALLY = VerdictTally()
