"""The watchdog shows where a stage hangs. If the stage reports no progress for some time, every
thread's stack goes to stderr, and so to the stage's log. This repeats after each further period
without progress. The watchdog does not end the stage.

faulthandler's timer writes the stacks. It does not need the interpreter, so it also works while a
process waits in a collective operation or in other native code.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data.progress import listening

STDERR = 2  # the file descriptor, whatever sys.stderr is
SHARE = 0.1  # share of the period between two settings of the timer


class Watchdog:
    """One per process, because faulthandler has one timer."""

    def __init__(self) -> None:
        self._seconds = 0.0  # 0: the watchdog is off
        self._set_at = 0.0

    @contextmanager
    def watching(self, seconds: float) -> Iterator[None]:
        """Watch while the block runs; 0 seconds: do not. Reports of engines and reward models from
        inside their batches (data/progress.py) count as progress."""
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
        """Report progress of the stage. The call is cheap: make it after every batch."""
        if self._seconds and time.monotonic() - self._set_at > SHARE * self._seconds:
            self._set()

    def _set(self) -> None:
        self._set_at = time.monotonic()
        faulthandler.dump_traceback_later(self._seconds, repeat=True, file=STDERR)


WATCHDOG = Watchdog()
