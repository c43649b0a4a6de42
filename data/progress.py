"""Progress inside a batch: the code that works on a batch reports, and a display listens.

A search may wait minutes for one batch of an engine. The engine, a reward model or a check of many
rows therefore reports its progress from inside its loop. This code does not know the display and
works the same without one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class BatchProgress:
    """The progress of one batch: `done` of its `total` pieces of work are finished.

    `unit` is the name of the pieces, in the plural. A `total` of 0 means that the total is not
    known. `tokens` is the number of tokens generated or read so far, and `new_tokens` is the number
    since the last report.
    """

    def __init__(self, unit: str, total: int) -> None:
        self.unit, self.total = unit, total
        self.done = self.tokens = self.new_tokens = 0

    def add(self, done: int, tokens: int = 0) -> None:
        """Report `done` more finished pieces, and `tokens` more tokens."""
        self.done += done
        self.tokens += tokens
        self.new_tokens = tokens
        for listener in tuple(_LISTENERS):
            listener(self)


def reported(items: Sequence[T], unit: str) -> Iterator[T]:
    """Yield the items unchanged and report them as a batch. An item counts as done when the next
    item is requested."""
    batch = BatchProgress(unit, len(items))
    for item in items:
        yield item
        batch.add(1)


Listener = Callable[[BatchProgress], None]
_LISTENERS: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Call `listener` with every report of every batch while the block runs. Blocks may be
    nested."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)
