"""Runs the searches of many problems with an engine that answers single requests.

Each problem goes on as soon as its own answers are there: no problem waits for another one's step,
so the engine always has the requests of all running problems. A sample depends on its request
alone (its seed is a hash of the run's seed, problem, node and index), so the number of problems in
flight and their order decide nothing but the time.

A reward model is asked in batches: while it works, the paths that come in wait, and they are the
next batch. A judge has its own batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Protocol, cast

from data.progress import BatchProgress
from data.types import Problem
from search.base import (
    ChoiceRequest,
    ChoiceResult,
    Policy,
    SampleRequest,
    SampleResult,
    Scorer,
    SearchResult,
    Strategy,
)
from search.journal import Call, Journal, Results
from search.request_queue import RequestQueue
from search.running import (
    OnProgress,
    ProblemSession,
    Running,
    SearchProgress,
    advance,
    begin,
)


class RequestEngine(Protocol):
    """Answers single requests: token ids in, token ids out.

    The answer to a request is a function of (`seed`, problem, request), up to the last bits of the
    engine's arithmetic, whatever other requests it has. `order` is the place of the problem: of the
    requests that wait for a place in the engine, those of the first problems go first. Cancelling
    a task withdraws its request.
    """

    async def sample(self, problem: str, request: SampleRequest, order: int) -> SampleResult: ...

    async def choose(self, problem: str, request: ChoiceRequest, order: int) -> ChoiceResult: ...

    def check_room(self, problem: str, tokens: int) -> None:
        """Raises ValueError if the policy could hold a prompt and its solution of together `tokens`
        tokens, but the engine was started with a smaller context."""
        ...

    async def close(self) -> None:
        """Close what belongs to the running event loop. The engine can be used again."""
        ...


class AsyncEngine(Policy, RequestEngine, Protocol):
    """A policy that answers single requests."""


def run_continuously(
    problems: Sequence[Problem],
    strategy: Strategy,
    open_session: Callable[[Problem], ProblemSession],
    *,
    engine: AsyncEngine,
    scorer: Scorer | None,
    judge: Scorer | None,
    max_concurrent: int,
    journal: Journal | None,
    on_progress: OnProgress,
) -> Iterator[SearchResult]:
    """As `search.batcher.run_searches`; `open_session` opens the session of a problem. Nothing runs
    while the caller works on a result, but the engine goes on with the requests that it has. Must
    not be called inside an event loop."""
    waiting = deque(enumerate(problems))
    loop = asyncio.new_event_loop()
    scoring = ThreadPoolExecutor(max_workers=1)
    searches = Searches(engine, scorer, judge, scoring, journal, on_progress)
    tasks: dict[asyncio.Task[SearchResult], int] = {}
    try:
        while waiting or tasks:
            while waiting and len(tasks) < max_concurrent:
                order, problem = waiting.popleft()
                session = open_session(problem)
                tasks[loop.create_task(searches.run(order, session, strategy))] = order
            ready, _ = loop.run_until_complete(
                asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            )
            for task in sorted(ready, key=tasks.__getitem__):
                del tasks[task]
                yield task.result()
    finally:
        loop.run_until_complete(searches.withdraw())
        scoring.shutdown()
        loop.run_until_complete(engine.close())
        loop.close()
        for task in tasks:  # of several errors, one is raised
            if not task.cancelled():
                task.exception()


class Searches:
    """The searches that run in one event loop, and how far they are. The reward model and the judge
    work in `scoring`."""

    def __init__(
        self,
        engine: RequestEngine,
        scorer: Scorer | None,
        judge: Scorer | None,
        scoring: Executor,
        journal: Journal | None,
        on_progress: OnProgress,
    ) -> None:
        self.engine, self.journal = engine, journal
        # By the kind of call. Without a model, the session refuses a search that needs it.
        self._scores = {
            kind: RequestQueue(model.score_batch, scoring)
            for kind, model in (("score", scorer), ("judge", judge))
            if model is not None
        }
        self._on_progress = on_progress
        self._samples = BatchProgress("samples", 0)
        self._running = self._finished = 0
        self._shares = 0.0  # of the searches that run, summed

    async def run(self, order: int, session: ProblemSession, strategy: Strategy) -> SearchResult:
        """Search one problem to its end."""
        self._running += 1
        if session.refusal() is None:
            room = len(session.prompt_ids) + session.settings.max_new_tokens
            self.engine.check_room(session.problem.id, min(room, session.engine.context_length))
        begun = begin(order, session, strategy, self.journal)
        result: SearchResult | None = None
        if not isinstance(begun, Running):
            result = begun
        told = 0.0  # the share of this search that is in `_shares`
        while result is None:
            search = cast("Running", begun)
            call, number = cast("Call", search.waiting_for), search.calls - 1
            answers = await self._answer(order, session.problem.id, call)
            if self.journal is not None:
                self.journal.add([(session.problem.id, number, call, answers)])
            search.share = session.share_after_call
            result = advance(search, answers, self.journal)
            if result is None:
                self._tell(search.share - told)
                told = search.share
        self._running -= 1
        self._finished += 1
        self._tell(-told)
        return result

    async def withdraw(self) -> None:
        """Cancel what still runs in the event loop, and wait for the reward models' batches."""
        work = {queue.work for queue in self._scores.values()}
        left = asyncio.all_tasks() - {asyncio.current_task(), *work}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for queue in self._scores.values():
            await queue.close()

    async def _answer(self, order: int, problem: str, call: Call) -> Results:
        if call.kind in ("score", "judge"):
            return await self._scores[call.kind].ask(order, [(problem, r) for r in call.requests])
        ask: Any = self.engine.sample if call.kind == "sample" else self.engine.choose
        answers: Any = await asyncio.gather(*(ask(problem, r, order) for r in call.requests))
        if call.kind == "sample":
            tokens = sum(answer.usage.generated_tokens for answer in answers)
            self._samples.add(sum(request.n for request in call.requests), tokens)
        return list(answers)

    def _tell(self, more: float) -> None:
        self._shares += more
        done = self._finished + self._shares
        self._on_progress(SearchProgress(finished=self._finished, running=self._running, done=done))
