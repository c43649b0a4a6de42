"""An engine that shows on a stream what it samples, while it samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from search.base import SampleRequest, SampleResult
from search.engines.transformers_engine import TransformersEngine


class Watched:
    """An engine that prints the text of one running sample token by token, and after every batch
    the number of tokens so far. Where the sample ends, the next running one follows."""

    def __init__(self, engine: TransformersEngine, stream: TextIO) -> None:
        self._engine = engine
        self._stream = stream
        self._tokens = 0
        self._started = time.monotonic()
        self._shown: Any = None
        self._printed = ""
        engine.on_tokens = self._show

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]:
        results = self._engine.sample_batch(items)
        self._end_line()
        self._tokens += sum(result.usage.generated_tokens for result in results)
        seconds = time.monotonic() - self._started
        print(f"{self._tokens:>9,} tokens {seconds:7.1f} s", file=self._stream, flush=True)
        return results

    def _show(self, _: Sequence[tuple[str, SampleRequest]], rows: Sequence[Any]) -> None:
        """`rows` are the rows of a batch after a token of each."""
        if self._shown is None:
            self._shown = next((row for row in rows if row.stop_reason is None), None)
        if self._shown is None:
            return
        text = self._engine.decode(self._shown.token_ids)
        ended = self._shown.stop_reason is not None
        # Half a character waits for its other half.
        ready = text if ended else text.rstrip("\ufffd")
        print(ready[len(self._printed) :], end="", file=self._stream, flush=True)
        self._printed = ready
        if ended:
            self._end_line()

    def _end_line(self) -> None:
        if self._printed and not self._printed.endswith("\n"):
            print(file=self._stream)
        self._shown, self._printed = None, ""
