"""How often verifiers said what in this process: for the trainer's metrics, never for a reward."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

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

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts that an interrupted attempt at the same work left."""
        with self._lock:
            self._counts.update(counts)

    def clear(self) -> None:
        with self._lock:
            self._counts.clear()

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


TALLY = VerdictTally()


def counted(verify: Callable[[], Verdict]) -> tuple[Verdict, dict[str, int]]:
    """The verdict, and what it added to `TALLY`; empty for a verifier that does not count."""
    before = TALLY.snapshot()
    verdict = verify()
    more = {name: count - before.get(name, 0) for name, count in TALLY.snapshot().items()}
    asked = {name.partition("/")[0] for name, count in more.items() if count}
    return verdict, {n: count for n, count in more.items() if n.partition("/")[0] in asked}
