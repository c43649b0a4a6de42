"""How far a batch is: whoever works on one reports it, and whoever shows progress listens.

A search waits minutes for one batch of an engine. The engine, a reward model or a check of many
rows reports from inside its loop. It knows nothing of a display, and works the same without one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class BatchProgress:
    """`done` of the batch's `total` pieces of work are finished. `unit` is their name, in the
    plural; a total of 0 is not known. `tokens` have been generated or read so far, `new_tokens`
    since the last report."""

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
    """The items as they are, as a batch: each counts as done when the next one is asked for."""
    batch = BatchProgress(unit, len(items))
    for item in items:
        yield item
        batch.add(1)


Listener = Callable[[BatchProgress], None]
_LISTENERS: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """`listener` gets every report of every batch while the block runs. Blocks may be nested."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)
