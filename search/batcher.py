"""Runs many one-problem searches together and resumes them after a crash.

A strategy's coroutine runs until it awaits a call; when every running problem waits, all calls are
answered as one batch, in (problem, node, index) order, so timing decides nothing. Every answer is
journalled. After a crash the same strategies are started again and the journal answers the calls
it knows: each search continues in the middle of its tree, and nothing is computed twice but the
batch that was in flight.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data.types import ModelUsage, Problem, Sample, StopReason, Usage, Verdict
from search.base import (
    Engine,
    SampleRequest,
    SampleResult,
    Scorer,
    ScoreRequest,
    ScoreResult,
    SearchResult,
    Session,
    Strategy,
)

Requests = Sequence[SampleRequest] | Sequence[ScoreRequest]
Results = list[SampleResult] | list[ScoreResult]
Verify = Callable[[Problem, str], Verdict]


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a coroutine waits for. Awaiting it hands it to the batcher and gets the results."""

    kind: str  # "sample" or "score"
    requests: tuple[Any, ...]

    def __await__(self) -> Generator[_Call, Any, Any]:
        return (yield self)


class ProblemSession:
    """Implements `search.base.Session`."""

    def __init__(
        self, problem: Problem, engine: Engine, verify: Verify, *, has_reward_model: bool
    ) -> None:
        self.problem = problem
        self.engine = engine
        self.prompt_ids = engine.encode(problem.prompt)
        self.usage = Usage()
        self._verify = verify
        self._has_reward_model = has_reward_model

    async def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        results: list[SampleResult] = await _Call(kind="sample", requests=tuple(requests))
        for result in results:
            self.usage += Usage(policy=result.usage)
        return results

    async def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        if not self._has_reward_model:
            raise ValueError("this search asks for process rewards, but no reward model was given")
        results: list[ScoreResult] = await _Call(kind="score", requests=tuple(requests))
        for result in results:
            self.usage += Usage(reward=result.usage)
        return results

    def verify(self, solution: str) -> Verdict:
        return self._verify(self.problem, solution)


class Journal:
    """Answers already paid for: one JSON line per call, keyed by (problem id, call number).

    A torn last line (the process was killed while writing) is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, int], Results] = {}
        for line in read_whole_lines(path):
            row = json.loads(line)
            results = [_result_from_json(item) for item in row["results"]]
            self._known[row["problem"], row["call"]] = cast("Results", results)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def get(self, problem_id: str, call: int) -> Results | None:
        return self._known.get((problem_id, call))

    def add(self, answers: Sequence[tuple[str, int, Results]]) -> None:
        """Append and flush, so that a kill of the process loses nothing that was added."""
        for problem_id, call, results in answers:
            row = {
                "problem": problem_id,
                "call": call,
                "results": [dataclasses.asdict(result) for result in results],
            }
            self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_whole_lines(path: Path) -> list[str]:
    """Lines of a file that is appended to; a last line without its newline is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return content[:whole].decode("utf-8").splitlines()


def _result_from_json(row: dict[str, Any]) -> SampleResult | ScoreResult:
    usage = ModelUsage(**row["usage"])
    if "scores" in row:
        return ScoreResult(scores=tuple(row["scores"]), usage=usage)
    return SampleResult(
        samples=tuple(
            Sample(
                token_ids=tuple(sample["token_ids"]),
                step_logprobs=tuple(sample["step_logprobs"]),
                stop_reason=StopReason(sample["stop_reason"]),
            )
            for sample in row["samples"]
        ),
        usage=usage,
    )


@dataclass(slots=True)
class _Running:
    order: int
    session: ProblemSession
    coroutine: Coroutine[_Call, Any, SearchResult]
    waiting_for: _Call | None = None
    calls: int = 0


def run_searches(
    problems: Sequence[Problem],
    strategy: Strategy,
    *,
    engine: Engine,
    scorer: Scorer | None,
    verify: Verify,
    max_concurrent: int = 256,
    journal: Journal | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[SearchResult]:
    """Yield each problem's result as it finishes. `strategy` is started once per problem.

    At most `max_concurrent` problems run at once; one that finishes makes room for the next.
    `on_batch` is told after every batch how many problems are finished and how many run.
    Raises whatever a strategy, the engine or the verifier raises.
    """
    queue = deque(enumerate(problems))
    running: list[_Running] = []
    while queue or running:
        while queue and len(running) < max_concurrent:
            order, problem = queue.popleft()
            session = ProblemSession(problem, engine, verify, has_reward_model=scorer is not None)
            coroutine = cast(
                "Coroutine[_Call, Any, SearchResult]", strategy(cast("Session", session))
            )
            search = _Running(order=order, session=session, coroutine=coroutine)
            result = _advance(search, None, journal)
            if result is None:
                running.append(search)
            else:
                yield result
        if not running:
            continue
        answers = _answer(running, engine, scorer)
        if journal is not None:
            journal.add(
                [
                    (search.session.problem.id, search.calls - 1, results)
                    for search, results in zip(running, answers, strict=True)
                ]
            )
        still_running: list[_Running] = []
        finished: list[SearchResult] = []
        for search, results in zip(running, answers, strict=True):
            result = _advance(search, results, journal)
            if result is None:
                still_running.append(search)
            else:
                finished.append(result)
        running = still_running
        if on_batch is not None:
            on_batch(len(problems) - len(queue) - len(running), len(running))
        yield from finished


def _advance(
    search: _Running, results: Results | None, journal: Journal | None
) -> SearchResult | None:
    """Run one search until it waits for a call the journal cannot answer, or ends."""
    while True:
        try:
            call = search.coroutine.send(results)
        except StopIteration as end:
            return end.value
        search.waiting_for = call
        search.calls += 1
        known = journal.get(search.session.problem.id, search.calls - 1) if journal else None
        if known is None:
            return None
        results = known


def _answer(running: Sequence[_Running], engine: Engine, scorer: Scorer | None) -> list[Results]:
    answers: dict[int, Results] = {}
    for kind in ("sample", "score"):
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
            for request in cast("_Call", search.waiting_for).requests
        ]
        if kind == "sample":
            flat: list[Any] = list(engine.sample_batch(items))
        else:
            assert scorer is not None
            flat = list(scorer.score_batch(items))
        cursor = 0
        for search in searches:
            count = len(cast("_Call", search.waiting_for).requests)
            answers[search.order] = flat[cursor : cursor + count]
            cursor += count
    return [answers[search.order] for search in running]
