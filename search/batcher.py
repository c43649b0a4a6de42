"""Runs the searches of many problems together and resumes them after a crash.

The coroutine of a strategy runs until it awaits a call. When the coroutines of all running problems
wait, all calls are answered together, with one batch per kind of call. The order in a batch is the
order of the problems, and within a problem the order of its requests, so timing has no influence.

Every answer goes into the journal. After a crash the same strategies start again, and the journal
answers the calls that it holds. Each search then continues in the middle of its tree. Only the
batch that was running at the crash is computed twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data.progress import BatchProgress, listening
from data.row_files import read_whole_lines
from data.types import ModelUsage, Problem, Sample, StopReason, TokenDraws, Usage, Verdict
from rewards.base import Verify
from rewards.verifiers.final_answers import whole_text
from search.base import (
    ChoiceRequest,
    ChoiceResult,
    Engine,
    Node,
    SampleRequest,
    SampleResult,
    Scorer,
    ScoreRequest,
    ScoreResult,
    SearchEnd,
    SearchResult,
    Session,
    Strategy,
)
from search.read_prefixes import ReadPrefixes, with_repeats
from search.settings import SearchSettings

Results = list[SampleResult] | list[ScoreResult] | list[ChoiceResult]
FinalAnswer = Callable[[Problem, str], str]


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A call that a coroutine waits for. `await` gives the call to the batcher and returns the
    results."""

    kind: str  # "sample", "score" or "choose"
    requests: tuple[Any, ...]

    def fingerprint(self) -> str:
        text = f"{self.kind}{self.requests!r}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def __await__(self) -> Generator[_Call, Any, Any]:
        return (yield self)


class ProblemSession:
    """Implements `search.base.Session`."""

    def __init__(
        self,
        problem: Problem,
        engine: Engine,
        verify: Verify,
        settings: SearchSettings,
        final_answer: FinalAnswer,
        *,
        scorer: Scorer | None,
    ) -> None:
        self.problem = problem
        self.engine = engine
        self.settings = settings
        self.prompt_ids = engine.encode_prompt(problem.prompt)
        self.usage = Usage()
        self.node_usage: dict[int, Usage] = {}
        self.beside = Usage()
        self.best_score = 0.0
        self.share_after_call = 0.0
        self._verify = verify
        self._final_answer = final_answer
        self._scorer = scorer
        self._read_by_policy = ReadPrefixes()
        self._read_by_reward_model = ReadPrefixes()
        self._started = time.monotonic()

    async def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        results: list[SampleResult] = await _Call(kind="sample", requests=tuple(requests))
        # The last token of a prefix always goes through the model: its logits are needed.
        known = self._read_by_policy.known_of_batch([r.prefix[:-1] for r in requests])
        for request, result in zip(requests, results, strict=True):
            for sample in result.samples:
                self._read_by_policy.add(request.prefix + sample.token_ids[:-1])
        return [
            dataclasses.replace(result, usage=self._policy_spent(asked.node, result.usage, length))
            for asked, result, length in zip(requests, results, known, strict=True)
        ]

    async def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        if self._scorer is None:
            raise ValueError("this search needs process rewards, but there is no reward model")
        results: list[ScoreResult] = await _Call(kind="score", requests=tuple(requests))
        known = self._read_by_reward_model.known_of_batch([r.sequence for r in requests])
        found: list[ScoreResult] = []
        for request, result, length in zip(requests, results, known, strict=True):
            self._read_by_reward_model.add(request.sequence)
            usage = with_repeats(result.usage, length, self._scorer.prefix_flops)
            self._spend(request.node, Usage(reward=usage))
            found.append(dataclasses.replace(result, usage=usage))
        return found

    async def choose(self, requests: Sequence[ChoiceRequest]) -> list[ChoiceResult]:
        results: list[ChoiceResult] = await _Call(kind="choose", requests=tuple(requests))
        known = self._read_by_policy.known_of_batch([r.prefix[:-1] for r in requests])
        for request in requests:
            self._read_by_policy.add(request.prefix)
        return [
            dataclasses.replace(result, usage=self._policy_spent(asked.node, result.usage, length))
            for asked, result, length in zip(requests, results, known, strict=True)
        ]

    def _policy_spent(self, node: int, usage: ModelUsage, known: int) -> ModelUsage:
        """Count and return the cost of a request whose first `known` positions the policy had read
        before."""
        usage = with_repeats(usage, known, self.engine.prefix_flops)
        self._spend(node, Usage(policy=usage))
        return usage

    def verify(self, solution: str) -> Verdict:
        return self._verify(self.problem, solution)

    def final_answer(self, solution: str) -> str:
        return self._final_answer(self.problem, solution)

    def exhausted(self) -> SearchEnd | None:
        settings, spent = self.settings, self.usage - self.beside
        if 0 < settings.stop_score <= self.best_score:
            return SearchEnd.CONFIDENT
        if 0 < settings.max_generated_tokens <= spent.policy.generated_tokens:
            return SearchEnd.TOKENS
        if 0 < settings.max_flops <= spent.flops:
            return SearchEnd.FLOPS
        if 0 < settings.max_seconds <= time.monotonic() - self._started:
            return SearchEnd.DEADLINE
        return None

    def refusal(self) -> SearchResult | None:
        """The result of a problem whose search cannot start, else None. A search cannot start when
        the prompt has fewer than the 2 tokens that an engine needs, or fills the context."""
        if len(self.prompt_ids) < 2:
            end = SearchEnd.EMPTY_PROMPT
        elif len(self.prompt_ids) >= self.engine.context_length:
            end = SearchEnd.LONG_PROMPT
        else:
            return None
        return SearchResult(
            problem=self.problem,
            strategy="",
            nodes=(Node(id=0, parent=-1, token_ids=(), text=""),),
            snapshots=(),
            usage=Usage(),
            end=end,
        )

    def _spend(self, node: int, usage: Usage) -> None:
        self.usage += usage
        self.node_usage[node] = self.node_usage.get(node, Usage()) + usage


class Journal:
    """A file of the calls that have an answer already, one JSON line per call.

    The key of a line is (problem id, call number). A line also holds a hash of the requests. The
    journal does not answer a call with other requests, which can happen when a deadline changed the
    course of the search.

    When a process was killed while it wrote, the last line is incomplete. It is cut off when the
    file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, int], tuple[str, Results]] = {}
        for line in read_whole_lines(path):
            row = json.loads(line)
            results = [_result_from_json(item) for item in row["results"]]
            answer = (str(row["asked"]), cast("Results", results))
            self._known[row["problem"], row["call"]] = answer
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def get(self, problem_id: str, number: int, call: _Call) -> Results | None:
        """The results of a call, or None when the journal has no answer to these requests."""
        asked, results = self._known.get((problem_id, number), ("", None))
        return results if asked == call.fingerprint() else None

    def add(self, answers: Sequence[tuple[str, int, _Call, Results]]) -> None:
        """Append the answers and flush the file, so that they survive a kill of the process."""
        for problem_id, number, call, results in answers:
            row = {
                "problem": problem_id,
                "call": number,
                "asked": call.fingerprint(),
                "results": [dataclasses.asdict(result) for result in results],
            }
            self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _draws_from_json(row: dict[str, list[float]] | None) -> TokenDraws | None:
    return None if row is None else TokenDraws(**{key: tuple(row[key]) for key in row})


def _result_from_json(row: dict[str, Any]) -> SampleResult | ScoreResult | ChoiceResult:
    usage = ModelUsage(**row["usage"])
    if "scores" in row:
        return ScoreResult(scores=tuple(row["scores"]), usage=usage)
    if "probabilities" in row:
        return ChoiceResult(probabilities=tuple(row["probabilities"]), usage=usage)
    return SampleResult(
        samples=tuple(
            Sample(
                token_ids=tuple(sample["token_ids"]),
                step_logprobs=tuple(sample["step_logprobs"]),
                step_entropies=tuple(sample["step_entropies"]),
                stop_reason=StopReason(sample["stop_reason"]),
                draws=_draws_from_json(sample["draws"]),
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
    share: float = 0.0  # the share of the search that was done before the pending call


@dataclass(frozen=True, kw_only=True)
class SearchProgress:
    """How far the searches are. `finished` problems have a result, and `running` problems are being
    searched. `done` is a number of problems too. It adds to `finished` the share that is done of
    each running search, if the strategy reports that share."""

    finished: int
    running: int
    done: float


OnProgress = Callable[[SearchProgress], None]


def run_searches(
    problems: Sequence[Problem],
    strategy: Strategy,
    *,
    engine: Engine,
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
    ends, the next one starts. `on_progress` is called during every batch and after it.

    Raises every error that a strategy, the engine, the scorer or the verifier raises.
    """
    queue = deque(enumerate(problems))
    running: list[_Running] = []
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
            begun = _begin(order, session, strategy, journal)
            if isinstance(begun, _Running):
                running.append(begun)
            else:
                yield begun
        if not running:
            continue
        finished_before = len(problems) - len(queue) - len(running)
        answers = _answer(running, engine, scorer, finished_before, on_progress)
        if journal is not None:
            _write_down(journal, running, answers)
        still_running: list[_Running] = []
        finished: list[SearchResult] = []
        for search, results in zip(running, answers, strict=True):
            search.share = search.session.share_after_call
            result = _advance(search, results, journal)
            if result is None:
                still_running.append(search)
            else:
                finished.append(result)
        running = still_running
        finished_now = len(problems) - len(queue) - len(running)
        done = finished_now + sum(search.share for search in running)
        on_progress(SearchProgress(finished=finished_now, running=len(running), done=done))
        yield from finished


def _begin(
    order: int, session: ProblemSession, strategy: Strategy, journal: Journal | None
) -> _Running | SearchResult:
    """Start the search of one problem. It waits for its first call that the journal cannot answer.
    A search that never has to wait gives its result, and so does a prompt that allows no search."""
    refusal = session.refusal()
    if refusal is not None:
        return refusal
    coroutine = cast("Coroutine[_Call, Any, SearchResult]", strategy(cast("Session", session)))
    search = _Running(order=order, session=session, coroutine=coroutine)
    result = _advance(search, None, journal)
    return search if result is None else result


def _write_down(journal: Journal, running: Sequence[_Running], answers: Sequence[Results]) -> None:
    """Write the answer of each waiting search into the journal."""
    calls = [(s.session.problem.id, s.calls - 1, cast("_Call", s.waiting_for)) for s in running]
    journal.add([(*call, results) for call, results in zip(calls, answers, strict=True)])


def _advance(
    search: _Running, results: Results | None, journal: Journal | None
) -> SearchResult | None:
    """Run one search until it waits for a call that the journal cannot answer (returns None), or
    until it ends (returns its result)."""
    while True:
        try:
            call = search.coroutine.send(results)
        except StopIteration as end:
            return end.value
        search.waiting_for = call
        search.calls += 1
        number = search.calls - 1
        known = journal.get(search.session.problem.id, number, call) if journal else None
        if known is None:
            return None
        search.share = search.session.share_after_call
        results = known


def _answer(
    running: Sequence[_Running],
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
            for request in cast("_Call", search.waiting_for).requests
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
            count = len(cast("_Call", search.waiting_for).requests)
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
