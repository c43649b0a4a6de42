"""A hang leaves stacks behind: where a stage reports no progress for a while, every thread's stack
goes to stderr, and so to the stage's log, and again after each further while. Nothing is ended.

faulthandler's own timer writes them. It needs no interpreter, so it also speaks when a process
waits in a collective operation or in other native code.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data.progress import listening

STDERR = 2  # the file descriptor: whatever sys.stderr is at the time
SHARE = 0.1  # of the time, between two settings of the timer


class Watchdog:
    """One a process, as faulthandler has one timer."""

    def __init__(self) -> None:
        self._seconds = 0.0  # 0: nothing is watched
        self._set_at = 0.0

    @contextmanager
    def watching(self, seconds: float) -> Iterator[None]:
        """Watch while the block runs; 0 seconds: do not. What engines and reward models report
        from inside their batches (data/progress.py) counts as progress."""
        self._seconds = seconds
        if seconds:
            self._set()
        try:
            with listening(lambda _: self.progress()):
                yield
        finally:
            self._seconds = 0.0
            if seconds:
                faulthandler.cancel_dump_traceback_later()

    def progress(self) -> None:
        """The stage got on. Cheap: call it after every batch."""
        if self._seconds and time.monotonic() - self._set_at > SHARE * self._seconds:
            self._set()

    def _set(self) -> None:
        self._set_at = time.monotonic()
        faulthandler.dump_traceback_later(self._seconds, repeat=True, file=STDERR)


WATCHDOG = Watchdog()
