"""Runs the searches of many problems together and resumes them after a crash.

The coroutine of a strategy runs until it awaits a call. When the coroutines of all running problems
wait, all calls are answered together, with one batch per kind of call. The order in a batch is the
order of the problems, and within a problem the order of its requests, so timing has no influence.
An engine that answers single requests needs no batches (search/continuous.py).

Every answer goes into the journal (search/journal.py). After a crash only the batch that was
running is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
    judge: Scorer | None = None,
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
    `judge` is the second reward model of `answer_guidance: judge`.

    Raises every error that a strategy, the engine, the scorer or the verifier raises.
    """

    def open_session(problem: Problem) -> ProblemSession:
        used = settings or SearchSettings()
        return ProblemSession(
            problem, engine, verify, used, final_answer, scorer=scorer, judge=judge
        )

    if hasattr(engine, "sample_batch"):
        batches = _Batches(cast("Engine", engine), scorer, judge, journal, on_progress)
        return batches.run(problems, strategy, open_session, max_concurrent)
    return run_continuously(
        problems,
        strategy,
        open_session,
        engine=cast("AsyncEngine", engine),
        scorer=scorer,
        judge=judge,
        max_concurrent=max_concurrent,
        journal=journal,
        on_progress=on_progress,
    )


class _Batches:
    """The searches that run, and the batches that answer all their calls together."""

    def __init__(
        self,
        engine: Engine,
        scorer: Scorer | None,
        judge: Scorer | None,
        journal: Journal | None,
        on_progress: OnProgress,
    ) -> None:
        self.engine, self.journal = engine, journal
        self._scorers = {"score": scorer, "judge": judge}  # by the kind of call
        self._on_progress = on_progress
        self._running: list[Running] = []
        self._begun = 0  # problems, with those that have a result

    def run(
        self,
        problems: Sequence[Problem],
        strategy: Strategy,
        open_session: Callable[[Problem], ProblemSession],
        max_concurrent: int,
    ) -> Iterator[SearchResult]:
        while self._begun < len(problems) or self._running:
            while self._begun < len(problems) and len(self._running) < max_concurrent:
                order, problem = self._begun, problems[self._begun]
                self._begun += 1
                begun = begin(order, open_session(problem), strategy, self.journal)
                if isinstance(begun, Running):
                    self._running.append(begun)
                else:
                    yield begun
            if self._running:
                yield from self._next_results()

    def _next_results(self) -> list[SearchResult]:
        """Answer the calls of all running searches. Returns the results of those that end."""
        answers = self._answers()
        if self.journal is not None:
            _write_down(self.journal, self._running, answers)
        still_running: list[Running] = []
        finished: list[SearchResult] = []
        for search, results in zip(self._running, answers, strict=True):
            search.share = search.session.share_after_call
            result = advance(search, results, self.journal)
            if result is None:
                still_running.append(search)
            else:
                finished.append(result)
        self._running = still_running
        self._tell(self._done())
        return finished

    def _answers(self) -> list[Results]:
        answers: dict[int, Results] = {}
        done = self._done()
        for kind in ("sample", "score", "judge", "choose"):
            searches = [
                search
                for search in sorted(self._running, key=lambda search: search.order)
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
            with listening(partial(self._tell_inside, done, gain)):
                flat = self._ask(kind, items)
            done += gain
            cursor = 0
            for search in searches:
                count = len(cast("Call", search.waiting_for).requests)
                answers[search.order] = flat[cursor : cursor + count]
                cursor += count
        return [answers[search.order] for search in self._running]

    def _ask(self, kind: str, items: list[Any]) -> list[Any]:
        if kind == "sample":
            return list(self.engine.sample_batch(items))
        if kind == "choose":
            return list(self.engine.choice_batch(items))
        scorer = self._scorers[kind]
        assert scorer is not None, "the session refuses a call without its reward model"
        return list(scorer.score_batch(items))

    @property
    def _finished(self) -> int:
        return self._begun - len(self._running)

    def _done(self) -> float:
        return self._finished + sum(search.share for search in self._running)

    def _tell_inside(self, done: float, gain: float, batch: BatchProgress) -> None:
        """Tell the progress inside a batch: `done` problems are done before it, and the whole batch
        adds `gain`."""
        self._tell(done + (gain * batch.done / batch.total if batch.total else 0.0))

    def _tell(self, done: float) -> None:
        running = len(self._running)
        self._on_progress(SearchProgress(finished=self._finished, running=running, done=done))


def _write_down(journal: Journal, running: Sequence[Running], answers: Sequence[Results]) -> None:
    """Write the answer of each waiting search into the journal."""
    calls = [(s.session.problem.id, s.calls - 1, cast("Call", s.waiting_for)) for s in running]
    journal.add([(*call, results) for call, results in zip(calls, answers, strict=True)])
