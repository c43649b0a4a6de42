"""Collect the requests of many connections into batches for one model.

While one batch is computed, the next one is collected. When no request waits, the first new request
waits a few milliseconds for more requests. Requests are served in the order in which they arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from rewards.server.scoring import Question, Reply, ServedModel, size_of


class QueueFull(Exception):
    """The queue has no room for these requests at the moment."""


@dataclass(frozen=True, kw_only=True)
class BatchingConfig:
    """How the server of a reward model collects requests into batches. A batch has at least one
    request.
    """

    batch_rows: int = 256
    """Limit of the requests per batch."""
    batch_tokens: int = 131_072
    """Limit of the tokens per batch; each byte of a text counts as one token."""
    linger_milliseconds: float = 2.0
    """Longest wait for more requests after the first one of a batch, in milliseconds."""
    max_waiting: int = 8192
    """Limit of the requests that wait; further requests are refused."""

    def __post_init__(self) -> None:
        for name in ("batch_rows", "batch_tokens", "max_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.linger_milliseconds >= 0:
            raise ValueError(
                f"linger_milliseconds is {self.linger_milliseconds}; it must not be negative"
            )


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    question: Question
    size: int
    since: float
    answer: asyncio.Future[Reply]


class MicroBatcher:
    """Answers the questions of `submit` in batches, one batch at a time. `run` is the loop. The
    model runs on `executor`."""

    def __init__(self, model: ServedModel, config: BatchingConfig, executor: Executor) -> None:
        self.model = model
        self.config = config
        self.batches = 0
        self.answered = 0
        self._executor = executor
        self._waiting: deque[_Waiting] = deque()
        self._waiting_tokens = 0
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, questions: Sequence[Question]) -> list[asyncio.Future[Reply]]:
        """Put questions into the queue. Returns one future answer per question.

        An answer that is cancelled before its batch starts is not computed. Raises QueueFull when
        the queue does not have room for all questions.
        """
        if len(self._waiting) + len(questions) > self.config.max_waiting:
            raise QueueFull
        loop = asyncio.get_running_loop()
        entries = [
            _Waiting(
                question=question,
                size=size_of(question),
                since=loop.time(),
                answer=loop.create_future(),
            )
            for question in questions
        ]
        self._waiting.extend(entries)
        self._waiting_tokens += sum(entry.size for entry in entries)
        self._arrived.set()
        return [entry.answer for entry in entries]

    async def run(self) -> None:
        """Answer batches of waiting questions until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._gather()
            batch = self._take()
            if not batch:
                continue
            questions = [entry.question for entry in batch]
            answers = await loop.run_in_executor(self._executor, self.model.answers, questions)
            self.batches += 1
            self.answered += len(batch)
            for entry, answer in zip(batch, answers, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(answer)

    async def _gather(self) -> None:
        """Wait until a batch can start."""
        loop = asyncio.get_running_loop()
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        end = self._waiting[0].since + self.config.linger_milliseconds / 1000
        while not self._full() and loop.time() < end:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _full(self) -> bool:
        return (
            len(self._waiting) >= self.config.batch_rows
            or self._waiting_tokens >= self.config.batch_tokens
        )

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        tokens = 0
        while self._waiting and len(batch) < self.config.batch_rows:
            entry = self._waiting[0]
            wanted = not entry.answer.cancelled()
            if batch and wanted and tokens + entry.size > self.config.batch_tokens:
                break
            self._waiting.popleft()
            self._waiting_tokens -= entry.size
            if wanted:
                batch.append(entry)
                tokens += entry.size
        return batch
