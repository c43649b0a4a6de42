"""Runs the searches of many problems together and resumes them after a crash.

The coroutine of a strategy runs until it awaits a call. When the coroutines of all running problems
wait, all calls are answered together, with one batch per kind of call. The order in a batch is the
order of the problems, and within a problem the order of its requests, so timing has no influence.
An engine that answers single requests needs no batches (search/continuous.py).

Every answer goes into the journal (search/journal.py). After a crash only the batch that was
running is computed twice.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

from data.progress import BatchProgress, listening
from data.types import Problem
from rewards.base import Verify
from rewards.verifiers.final_answers import whole_text
from search.base import Engine, Scorer, SearchResult, Strategy
from search.continuous import AsyncEngine, run_continuously
from search.journal import Call, Journal, Results
from search.running import (
    FinalAnswer,
    OnProgress,
    ProblemSession,
    Running,
    SearchProgress,
    advance,
    begin,
)
from search.settings import SearchSettings


def run_searches(
    problems: Sequence[Problem],
    strategy: Strategy,
    *,
    engine: Engine | AsyncEngine,
    scorer: Scorer | None,
    verify: Verify,
    settings: SearchSettings | None = None,
    final_answer: FinalAnswer = whole_text,
    max_concurrent: int = 256,
    journal: Journal | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Iterator[SearchResult]:
    """Yield the result of each problem when its search ends.

    `strategy` starts once per problem. A problem whose prompt allows no search gets a result whose
    `end` gives the reason (`SearchEnd`). At most `max_concurrent` problems run at once. When one
    ends, the next one starts. `on_progress` is called during every batch and after it. With an
    `AsyncEngine` there are no batches: each problem goes on as soon as its own answers are there.

    Raises every error that a strategy, the engine, the scorer or the verifier raises.
    """
    if not hasattr(engine, "sample_batch"):
        yield from run_continuously(
            problems,
            strategy,
            engine=cast("AsyncEngine", engine),
            scorer=scorer,
            verify=verify,
            settings=settings or SearchSettings(),
            final_answer=final_answer,
            max_concurrent=max_concurrent,
            journal=journal,
            on_progress=on_progress,
        )
        return
    engine = cast("Engine", engine)
    queue = deque(enumerate(problems))
    running: list[Running] = []
    while queue or running:
        while queue and len(running) < max_concurrent:
            order, problem = queue.popleft()
            session = ProblemSession(
                problem,
                engine,
                verify,
                settings or SearchSettings(),
                final_answer,
                scorer=scorer,
            )
            begun = begin(order, session, strategy, journal)
            if isinstance(begun, Running):
                running.append(begun)
            else:
                yield begun
        if not running:
            continue
        finished_before = len(problems) - len(queue) - len(running)
        answers = _answer(running, engine, scorer, finished_before, on_progress)
        if journal is not None:
            _write_down(journal, running, answers)
        still_running: list[Running] = []
        finished: list[SearchResult] = []
        for search, results in zip(running, answers, strict=True):
            search.share = search.session.share_after_call
            result = advance(search, results, journal)
            if result is None:
                still_running.append(search)
            else:
                finished.append(result)
        running = still_running
        finished_now = len(problems) - len(queue) - len(running)
        done = finished_now + sum(search.share for search in running)
        on_progress(SearchProgress(finished=finished_now, running=len(running), done=done))
        yield from finished


def _write_down(journal: Journal, running: Sequence[Running], answers: Sequence[Results]) -> None:
    """Write the answer of each waiting search into the journal."""
    calls = [(s.session.problem.id, s.calls - 1, cast("Call", s.waiting_for)) for s in running]
    journal.add([(*call, results) for call, results in zip(calls, answers, strict=True)])


def _answer(
    running: Sequence[Running],
    engine: Engine,
    scorer: Scorer | None,
    finished: int,
    on_progress: OnProgress,
) -> list[Results]:
    answers: dict[int, Results] = {}
    done = finished + sum(search.share for search in running)
    for kind in ("sample", "score", "choose"):
        searches = [
            search
            for search in sorted(running, key=lambda search: search.order)
            if search.waiting_for is not None and search.waiting_for.kind == kind
        ]
        if not searches:
            continue
        items = [
            (search.session.problem.id, request)
            for search in searches
            for request in cast("Call", search.waiting_for).requests
        ]
        gain = sum(max(0.0, s.session.share_after_call - s.share) for s in searches)
        with _inside_batch(finished, len(running), done, gain, on_progress):
            if kind == "sample":
                flat: list[Any] = list(engine.sample_batch(items))
            elif kind == "choose":
                flat = list(engine.choice_batch(items))
            else:
                assert scorer is not None
                flat = list(scorer.score_batch(items))
        done += gain
        cursor = 0
        for search in searches:
            count = len(cast("Call", search.waiting_for).requests)
            answers[search.order] = flat[cursor : cursor + count]
            cursor += count
    return [answers[search.order] for search in running]


def _inside_batch(
    finished: int, running: int, done: float, gain: float, on_progress: OnProgress
) -> contextlib.AbstractContextManager[None]:
    """A context that passes the progress inside one batch of the engine or the scorer on to
    `on_progress`. `done` is the number of problems done before the batch. The whole batch adds
    `gain` to it."""

    def tell(batch: BatchProgress) -> None:
        now = done + (gain * batch.done / batch.total if batch.total else 0.0)
        on_progress(SearchProgress(finished=finished, running=running, done=now))

    return listening(tell)
