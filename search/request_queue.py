"""Gives a model the requests of many searches in batches: what waits while it works is the next
batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The items of one call, and its answer. `order` is the place of the problem."""

    order: int
    items: list[tuple[str, Any]]
    answer: asyncio.Future[list[Any]]


class RequestQueue:
    """Answers items, pairs of a problem id and a request, in the order of their problems.

    `answer` gets a batch and returns one answer per item. It runs in `executor`. A batch holds all
    calls that wait, but no more than `most` (0: no limit) by `size` unless it is one call. If a
    batch of several calls raises, each is answered alone, so that only the call that is wrong gets
    the error. A call that is cancelled before its batch starts is not answered.
    """

    def __init__(
        self,
        answer: Callable[[list[tuple[str, Any]]], Sequence[Any]],
        executor: Executor,
        *,
        most: int = 0,
        size: Callable[[Any], int] = lambda _: 1,
    ) -> None:
        self._answer = answer
        self._executor = executor
        self._most = most
        self._size = size
        self._waiting: list[_Asked] = []
        self.work: asyncio.Task[None] | None = None

    async def ask(self, order: int, items: list[tuple[str, Any]]) -> list[Any]:
        """One answer per item. Raises what `answer` raises."""
        loop = asyncio.get_running_loop()
        asked = _Asked(order=order, items=items, answer=loop.create_future())
        self._waiting.append(asked)
        if self.work is None or self.work.done():
            self.work = loop.create_task(self._run())
        return await asked.answer

    async def close(self) -> None:
        """Wait for the batch that runs, and forget the calls that wait."""
        self._waiting = []
        if self.work is not None:
            await self.work

    async def _run(self) -> None:
        while batch := self._take():
            await self._answer_batch(batch)

    def _take(self) -> list[_Asked]:
        waiting = [asked for asked in self._waiting if not asked.answer.done()]
        batch: list[_Asked] = []
        total = 0
        for asked in sorted(waiting, key=lambda asked: asked.order):
            total += sum(self._size(request) for _, request in asked.items)
            if batch and 0 < self._most < total:
                break
            batch.append(asked)
        taken = set(map(id, batch))
        self._waiting = [asked for asked in waiting if id(asked) not in taken]
        return batch

    async def _answer_batch(self, batch: Sequence[_Asked]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for asked in batch for item in asked.items]
        try:
            answers = await loop.run_in_executor(self._executor, self._answer, items)
        except Exception as error:
            if len(batch) > 1:
                for asked in batch:
                    await self._answer_batch([asked])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        at = 0
        for asked in batch:
            if not asked.answer.done():  # its search may have been cancelled
                asked.answer.set_result(list(answers[at : at + len(asked.items)]))
            at += len(asked.items)
