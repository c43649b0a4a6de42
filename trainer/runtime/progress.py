"""Shows the progress of long work: how much is done, at what rate, and the time left.

On a terminal this is a tqdm bar. Elsewhere it is a plain line every 10 seconds, which a log and the
pipeline can show. Work of under 5 seconds shows nothing. Only the main process shows anything.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from data.progress import BatchProgress, listening
from trainer.runtime.processes import is_main_process
from trainer.runtime.watchdog import WATCHDOG

FIRST_SECONDS = 5.0  # of work before its first line
LINE_SECONDS = 10.0  # between two lines
BAR_SECONDS = 0.2  # between two drawings of the bar
WINDOW_SECONDS = 60.0  # over which a rate is taken
BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)


class Rate:
    """The rate of a count per second, over the last `WINDOW_SECONDS`. If the count did not grow in
    them, the rate over all the time since the start."""

    def __init__(self, start: float) -> None:
        self._seen: deque[tuple[float, float]] = deque([(start, 0.0)])
        self._start = start

    def add(self, now: float, count: float) -> None:
        """`count` is the total count at the time `now`, in seconds."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    def per_second(self) -> float:
        (first, before), (last, count) = self._seen[0], self._seen[-1]
        if count > before and last > first:
            return (count - before) / (last - first)
        return count / (last - self._start) if last > self._start else 0.0


class Progress:
    """Shows work of `total` pieces (0: the number is not known). `unit` is their name in the
    plural. While it is open as a context manager, it also shows the batches that are reported
    (data/progress.py).

    Call `update` or `advance` as often as you like: they show something when it is due.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str = "problems",
        *,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
        shown: bool | None = None,
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self._clock = clock
        self._stream = stream or sys.stdout
        self._shown = is_main_process() if shown is None else shown
        self._start = clock()
        self._due = self._start + FIRST_SECONDS
        self._rate, self._token_rate = Rate(self._start), Rate(self._start)
        self._done, self._finished, self._tokens, self._note = 0.0, 0, 0, ""
        self._batch: BatchProgress | None = None
        self._batch_rate = Rate(self._start)
        self._printed = False
        self._bar: Any = None
        self._listening = listening(self.on_batch)

    def __enter__(self) -> Progress:
        self._listening.__enter__()
        _OPEN.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _OPEN.remove(self)
        self._listening.__exit__(kind, error, trace)
        self.close(whole=kind is None)

    def close(self, *, whole: bool = True) -> None:
        """Show the final state. `whole` is true if no error ended the work."""
        if self._bar is not None:
            self._bar.close()
        elif self._printed and whole:
            took = duration(self._clock() - self._start)
            self._print(f"{self.name}: {self._count()} {self.unit} in {took}")

    def update(self, done: float, *, finished: int | None = None, note: str = "") -> None:
        """`done` counts pieces, including the finished parts of unfinished pieces. The rate and the
        time left follow from it. `finished` is the number of finished pieces (default: `done`)."""
        self._done, self._note = done, note
        self._finished = int(done) if finished is None else finished
        self._show_when_due()

    def advance(self, count: int = 1) -> None:
        """`count` more pieces are finished."""
        self.update(self._done + count)

    def on_batch(self, batch: BatchProgress) -> None:
        """A batch reported progress."""
        if batch is not self._batch:
            self._batch, self._batch_rate = batch, Rate(self._clock())
        self.count_tokens(batch.new_tokens)
        self._show_when_due()

    def count_tokens(self, new: int) -> None:
        """`new` more tokens were generated or read."""
        self._tokens += new

    def line(self) -> str:
        """The line to show now."""
        percent = f" ({self._done / self.total:.0%})" if self.total else ""
        parts = [f"{self.name}: {self._count()} {self.unit} done{percent}"]
        rate = self._rate.per_second()
        if rate > 0:
            parts.append(rate_text(rate, self.unit))
        if rate > 0 and self.total:
            parts.append(f"{duration(max(0.0, self.total - self._done) / rate)} left")
        return ", ".join(parts) + "".join(f"; {part}" for part in self._details())

    def _count(self) -> str:
        return f"{self._finished:,} of {self.total:,}" if self.total else f"{self._finished:,}"

    def _details(self) -> list[str]:
        details = [self._note] if self._note else []
        batch = self._batch
        if batch is not None and batch.done < batch.total:
            text = f"this batch: {batch.done:,} of {batch.total:,} {batch.unit}"
            rate = self._batch_rate.per_second()
            if rate > 0 and self._rate.per_second() == 0:
                text += f", {duration((batch.total - batch.done) / rate)} left"
            details.append(text)
        tokens = self._token_rate.per_second()
        if tokens > 0:
            details.append(f"{tokens:,.0f} tokens per second")
        return details

    def _show_when_due(self) -> None:
        WATCHDOG.progress()
        now = self._clock()
        if now < self._due or not self._shown:
            return
        self._rate.add(now, self._done)
        self._token_rate.add(now, self._tokens)
        if self._batch is not None:
            self._batch_rate.add(now, self._batch.done)
        if self._stream.isatty():
            self._due = now + BAR_SECONDS
            self._draw_bar(now)
        else:
            self._due = now + LINE_SECONDS
            self._print(self.line())

    def _print(self, line: str) -> None:
        self._printed = True
        print(line, file=self._stream, flush=True)

    def _draw_bar(self, now: float) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                desc=self.name,
                total=self.total or None,
                unit=f" {self.unit}",
                file=self._stream,
                bar_format=BAR,
                dynamic_ncols=True,
            )
            self._bar.start_t -= now - self._start
            self._bar.last_print_t = self._bar.start_t
        self._bar.set_postfix_str("; ".join(self._details()), refresh=False)
        self._bar.update(self._done - self._bar.n)
        self._bar.refresh()


_OPEN: list[Progress] = []


@contextmanager
def showing_batches(name: str, **options: Any) -> Generator[None]:
    """While no `Progress` is open, show every reported batch as separate work. This covers the work
    of a stage that does not count. The options are those of `Progress`."""
    batch: BatchProgress | None = None
    progress: Progress | None = None

    def show(reporting: BatchProgress) -> None:
        nonlocal batch, progress
        if _OPEN:
            return
        if progress is not None and reporting is not batch:
            progress.close()
            progress = None
        if progress is None:
            batch, progress = reporting, Progress(name, reporting.total, reporting.unit, **options)
        progress.count_tokens(reporting.new_tokens)
        progress.update(reporting.done)
        if reporting.done == reporting.total:
            progress.close()
            progress = None

    with listening(show):
        yield
    if progress is not None:
        progress.close()


class StatusLine:
    """Shows the messages of another process about its work, after `prefix` and the time. It is a
    context manager. On a terminal it redraws one line, and removes it at the end. Elsewhere it
    prints a line every 10 seconds. `seconds` is the time of earlier attempts."""

    def __init__(
        self,
        prefix: str,
        seconds: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        self._prefix, self._clock = prefix, clock
        self._stream = stream or sys.stdout
        self._start = clock() - seconds
        self._due = clock() + LINE_SECONDS
        self._bar: Any = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                bar_format="{desc}", file=self._stream, leave=False, dynamic_ncols=True
            )

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, text: str) -> None:
        """`text` is the newest message of the process. Call this as often as you like."""
        now = self._clock()
        line = f"{self._prefix} {duration(now - self._start)}  {text}"
        if self._bar is not None:
            self._bar.set_description_str(line)
        elif now >= self._due:
            self._due = now + LINE_SECONDS
            print(line, file=self._stream, flush=True)


def rate_text(per_second: float, unit: str) -> str:
    """A rate per second, minute or hour: the first of these units in which it is at least 1."""
    for seconds, name in ((1, "second"), (60, "minute")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.1f} {unit} per {name}"
    return f"{per_second * 3600:,.1f} {unit} per hour"


def duration(seconds: float) -> str:
    """'45 s', '3 min 20 s' or '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
