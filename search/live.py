"""Searches that come one at a time, for a server: they run in an event loop of their own, share
their batches, and can be withdrawn.

The answer of a search is a function of its problem, strategy and settings and of the engine's seed,
whatever other searches run, as far as the engine's arithmetic is (`RequestEngine`). The exceptions
are searches that a deadline ends or that are withdrawn.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, cast

from data.types import ModelUsage, Problem, StopReason, Usage
from rewards.base import Verify
from search.base import (
    ChoiceRequest,
    ChoiceResult,
    Engine,
    Policy,
    SampleRequest,
    SampleResult,
    Scorer,
    ScoreRequest,
    ScoreResult,
    SearchResult,
    Strategy,
)
from search.continuous import AsyncEngine, RequestEngine, Searches
from search.request_queue import RequestQueue
from search.running import FinalAnswer, ProblemSession
from search.settings import SearchSettings

T = TypeVar("T")
Items = Sequence[tuple[str, SampleRequest]]


class OpenRow(Protocol):
    """A sample of request `request` of a batch, while it is decoded."""

    request: int
    stop_reason: StopReason | None


class Spending:
    """What the models of all searches have computed, in any thread, and in how many batches of how
    many samples. Searches that were withdrawn count too."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.batches = 0
        self.samples = 0

    def sampled(self, results: Sequence[SampleResult | ChoiceResult], samples: int) -> None:
        self.batches += 1
        self.samples += samples
        self.usage += Usage(policy=sum((r.usage for r in results), ModelUsage()))

    def scored(self, results: Sequence[ScoreResult]) -> None:
        self.usage += Usage(reward=sum((r.usage for r in results), ModelUsage()))


class CountedScorer:
    """A reward model that counts what it computes."""

    def __init__(self, scorer: Scorer, spending: Spending) -> None:
        self._scorer = scorer
        self._spending = spending

    @property
    def shares_trunk(self) -> bool:
        return self._scorer.shares_trunk

    def prefix_flops(self, length: int) -> float:
        return self._scorer.prefix_flops(length)

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]:
        results = self._scorer.score_batch(items)
        self._spending.scored(results)
        return results


class CountedEngine:
    """A `RequestEngine` that counts what it computes."""

    def __init__(self, engine: RequestEngine, spending: Spending) -> None:
        self._engine = engine
        self._spending = spending

    async def sample(self, problem: str, request: SampleRequest, order: int) -> SampleResult:
        result = await self._engine.sample(problem, request, order)
        self._spending.sampled([result], request.n)
        return result

    async def choose(self, problem: str, request: ChoiceRequest, order: int) -> ChoiceResult:
        result = await self._engine.choose(problem, request, order)
        self._spending.sampled([result], 0)
        return result

    def check_room(self, problem: str, tokens: int) -> None:
        self._engine.check_room(problem, tokens)

    async def close(self) -> None:
        await self._engine.close()


class BatchedEngine:
    """Makes a `RequestEngine` of an engine that answers batches: what waits is the next batch.

    `stop` ends the samples of a search that are being decoded, at their next token, if the engine
    shows its rows while it decodes (`on_tokens`). Its later samples have one token each.
    """

    def __init__(
        self, engine: Engine, executor: Executor, max_rows: int, spending: Spending
    ) -> None:
        self._engine = engine
        self._spending = spending
        self._samples = RequestQueue(
            self._sample_batch, executor, most=max_rows, size=lambda request: request.n
        )
        self._choices = RequestQueue(self._choice_batch, executor, most=max_rows)
        self._of_search: dict[int, list[SampleRequest]] = {}  # by order: the requests that wait
        self._stopped: set[int] = set()  # orders
        self._decoding: set[int] = set()  # ids of requests
        self._ending: set[int] = set()  # those of them that are to end
        if hasattr(engine, "on_tokens"):
            cast("Any", engine).on_tokens = self._end_rows

    async def sample(self, problem: str, request: SampleRequest, order: int) -> SampleResult:
        if order in self._stopped:
            request = dataclasses.replace(request, max_new_tokens=1)
        mine = self._of_search.setdefault(order, [])
        mine.append(request)
        try:
            [answer] = await self._samples.ask(order, [(problem, request)])
        except asyncio.CancelledError:
            self._end([request])
            raise
        finally:
            mine.remove(request)
        return answer

    async def choose(self, problem: str, request: ChoiceRequest, order: int) -> ChoiceResult:
        [answer] = await self._choices.ask(order, [(problem, request)])
        return answer

    def check_room(self, problem: str, tokens: int) -> None:
        """An engine in this process has the policy's own context."""

    async def close(self) -> None:
        await self._samples.close()
        await self._choices.close()

    def stop(self, order: int) -> None:
        """The deadline of the search `order` has passed."""
        self._stopped.add(order)
        self._end(self._of_search.get(order, []))

    def forget(self, order: int) -> None:
        """The search `order` is over."""
        self._stopped.discard(order)
        self._of_search.pop(order, None)

    def _end(self, requests: Sequence[SampleRequest]) -> None:
        self._ending.update(id(r) for r in requests if id(r) in self._decoding)

    def _sample_batch(self, items: Items) -> Sequence[SampleResult]:
        self._ending.clear()
        self._decoding = {id(request) for _, request in items}
        try:
            results = self._engine.sample_batch(items)
        finally:
            self._decoding = set()
        self._spending.sampled(results, sum(request.n for _, request in items))
        return results

    def _choice_batch(self, items: Sequence[tuple[str, ChoiceRequest]]) -> Sequence[ChoiceResult]:
        results = self._engine.choice_batch(items)
        self._spending.sampled(results, 0)
        return results

    def _end_rows(self, items: Items, rows: Sequence[OpenRow]) -> None:
        """Called by the engine after every token of a batch."""
        if not self._ending:
            return
        for row in rows:
            if row.stop_reason is None and id(items[row.request][1]) in self._ending:
                row.stop_reason = StopReason.LENGTH


class LiveSearches:
    """Runs searches in a thread of its own, from any event loop.

    An engine that answers batches gets at most `max_rows` samples per batch. `max_rows` 0 is no
    limit. Call `close` at the end.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        scorer: Scorer | None,
        *,
        judge: Scorer | None = None,
        max_rows: int = 0,
    ) -> None:
        self.policy: Policy = engine
        self.scorer = scorer
        self.judge = judge
        self.spending = Spending()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")
        self._batched: BatchedEngine | None = None
        if hasattr(engine, "sample_batch"):
            self._batched = BatchedEngine(
                cast("Engine", engine), self._executor, max_rows, self.spending
            )
        self._engine: RequestEngine = self._batched or CountedEngine(
            cast("AsyncEngine", engine), self.spending
        )
        self._searches = Searches(
            self._engine,
            None if scorer is None else CountedScorer(scorer, self.spending),
            None if judge is None else CountedScorer(judge, self.spending),
            self._executor,
            None,
            lambda _: None,
        )
        self._orders = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="searches", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns, called in the thread of the searches."""

        async def run() -> T:
            return function()

        return await self._in_loop(run())

    async def search(
        self,
        problem: Problem,
        strategy: Strategy,
        settings: SearchSettings,
        *,
        verify: Verify,
        final_answer: FinalAnswer,
        token_limit: int = 0,
    ) -> SearchResult:
        """Search one problem. Cancelling withdraws the search; what a batch already decodes for it
        ends at the next token. `settings.max_seconds` also ends samples that are being decoded.
        `token_limit` is that of `ProblemSession`.

        Raises ValueError for a prompt that the policy cannot read, and what the strategy, the
        engine and the reward model raise.
        """

        async def run() -> SearchResult:
            session = ProblemSession(
                problem,
                self.policy,
                verify,
                settings,
                final_answer,
                scorer=self.scorer,
                judge=self.judge,
                token_limit=token_limit,
            )
            order = next(self._orders)
            timer = None
            if settings.max_seconds and self._batched is not None:
                timer = self._loop.call_later(settings.max_seconds, self._batched.stop, order)
            try:
                return await self._searches.run(order, session, strategy)
            finally:
                if timer is not None:
                    timer.cancel()
                if self._batched is not None:
                    self._batched.forget(order)

        return await self._in_loop(run())

    async def close(self) -> None:
        """Withdraw all searches, wait for the batch that runs, and end the threads."""
        await self._in_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()
        self._executor.shutdown()

    async def _end(self) -> None:
        await self._searches.withdraw()
        await self._engine.close()

    async def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
