"""The search for one problem: its session, and its coroutine between two calls."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

from data.types import ModelUsage, Problem, ServedTokens, Usage, Verdict
from rewards.base import Verify
from rewards.verifiers.tally import counted
from search.base import (
    ChoiceRequest,
    ChoiceResult,
    Node,
    Policy,
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
from search.journal import Call, Journal, Results
from search.read_prefixes import ReadPrefixes, ScoredEnds, common_to_all, with_repeats
from search.settings import JUDGE, SearchSettings

FinalAnswer = Callable[[Problem, str], str]


class ProblemSession:
    """Implements `search.base.Session`.

    A `token_limit` above 0 shortens requests, so that the search never generates more tokens, apart
    from one token per sample that it asks for at the limit. Such a search has samples that are cut
    off; `SearchSettings.max_generated_tokens` only ends a search between two calls.
    """

    def __init__(
        self,
        problem: Problem,
        engine: Policy,
        verify: Verify,
        settings: SearchSettings,
        final_answer: FinalAnswer,
        *,
        scorer: Scorer | None,
        judge: Scorer | None = None,
        token_limit: int = 0,
    ) -> None:
        self.token_limit = token_limit
        self.problem = problem
        self.engine = engine
        self.settings = settings
        self.prompt_ids = engine.encode_prompt(problem.prompt)
        self.usage = Usage()
        self.node_usage: dict[int, Usage] = {}
        self.beside = Usage()
        self.served: ServedTokens | None = None
        self.verdicts: Counter[str] = Counter()
        self.best_score = 0.0
        self.share_after_call = 0.0
        self._verify = verify
        self._final_answer = final_answer
        self._scorer = scorer
        self._judge = judge
        self._read_by_policy = ReadPrefixes()
        shared = scorer is not None and scorer.shares_trunk
        self._read_by_reward_model = self._read_by_policy if shared else ReadPrefixes()
        self._scored_ends = ScoredEnds() if shared else None
        self._read_by_judge = ReadPrefixes()
        self._started = time.monotonic()

    async def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        requests = self._within_limit(requests)
        results: list[SampleResult] = await Call(kind="sample", requests=tuple(requests))
        # The last token of a prefix always goes through the model: its logits are needed.
        known = self._read_by_policy.known_of_batch([r.prefix[:-1] for r in requests])
        for request, result in zip(requests, results, strict=True):
            self._count_served(result.served)
            for sample in result.samples:
                self._read_by_policy.add(request.prefix + sample.token_ids[:-1])
        return [
            dataclasses.replace(result, usage=self._policy_spent(asked.node, result.usage, length))
            for asked, result, length in zip(requests, results, known, strict=True)
        ]

    def _within_limit(self, requests: Sequence[SampleRequest]) -> Sequence[SampleRequest]:
        """The requests, shortened where they could exceed `token_limit` together."""
        left = self.token_limit - self.usage.policy.generated_tokens
        if not self.token_limit or sum(r.n * r.max_new_tokens for r in requests) <= left:
            return requests
        most = max(1, left // sum(request.n for request in requests))
        return [
            dataclasses.replace(r, max_new_tokens=min(r.max_new_tokens, most)) for r in requests
        ]

    async def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        if self._scorer is None:
            raise ValueError("this search needs process rewards, but there is no reward model")
        results: list[ScoreResult] = await Call(kind="score", requests=tuple(requests))
        known = self._known_by_reward_model(requests)
        return self._counted(requests, results, known, self._scorer, self._read_by_reward_model)

    async def judge(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        if self._judge is None:
            raise ValueError(f"answer_guidance is {JUDGE!r}, but this search has no judge")
        results: list[ScoreResult] = await Call(kind="judge", requests=tuple(requests))
        known = self._read_by_judge.known_of_batch([r.sequence for r in requests])
        return self._counted(requests, results, known, self._judge, self._read_by_judge)

    def _counted(
        self,
        requests: Sequence[ScoreRequest],
        results: Sequence[ScoreResult],
        known: Sequence[int],
        scorer: Scorer,
        read: ReadPrefixes,
    ) -> list[ScoreResult]:
        """Count the cost of score requests as the reward model's. Their first `known` positions
        need no forward pass. `read` holds what this model has read before."""
        found: list[ScoreResult] = []
        for request, result, length in zip(requests, results, known, strict=True):
            read.add(request.sequence)
            usage = with_repeats(result.usage, length, scorer.prefix_flops)
            self._spend(request.node, Usage(reward=usage))
            found.append(dataclasses.replace(result, usage=usage))
        return found

    def _known_by_reward_model(self, requests: Sequence[ScoreRequest]) -> list[int]:
        """The number of positions of each request that need no forward pass."""
        sequences = [request.sequence for request in requests]
        known = self._read_by_reward_model.known_of_batch(sequences)
        if self._scored_ends is None or not requests:
            return known
        shared = common_to_all(sequences)
        for i, request in enumerate(requests):
            known[i] = min(
                known[i], self._scored_ends.first_new(request.sequence, request.step_ends)
            )
            # A batch scores once what all of its sequences have in common.
            ends = [end for end in request.step_ends if end < shared]
            self._scored_ends.add(request.sequence, ends)
        for request in requests:
            self._scored_ends.add(request.sequence, request.step_ends)
        return known

    async def choose(self, requests: Sequence[ChoiceRequest]) -> list[ChoiceResult]:
        results: list[ChoiceResult] = await Call(kind="choose", requests=tuple(requests))
        known = self._read_by_policy.known_of_batch([r.prefix[:-1] for r in requests])
        for request, result in zip(requests, results, strict=True):
            self._count_served(result.served)
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

    def _count_served(self, tokens: ServedTokens | None) -> None:
        if tokens is not None:
            self.served = (self.served or ServedTokens()) + tokens

    def verify(self, solution: str) -> Verdict:
        verdict, counts = counted(lambda: self._verify(self.problem, solution))
        self.verdicts.update(counts)
        return verdict

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


@dataclass(slots=True)
class Running:
    """The search of one problem that has begun. `order` is the place of the problem."""

    order: int
    session: ProblemSession
    coroutine: Coroutine[Call, Any, SearchResult]
    waiting_for: Call | None = None
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


def begin(
    order: int, session: ProblemSession, strategy: Strategy, journal: Journal | None
) -> Running | SearchResult:
    """Start the search of one problem. It waits for its first call that the journal cannot answer.
    A search that never has to wait gives its result, and so does a prompt that allows no search."""
    refusal = session.refusal()
    if refusal is not None:
        return refusal
    coroutine = cast("Coroutine[Call, Any, SearchResult]", strategy(cast("Session", session)))
    search = Running(order=order, session=session, coroutine=coroutine)
    result = advance(search, None, journal)
    return search if result is None else result


def advance(
    search: Running, results: Results | None, journal: Journal | None
) -> SearchResult | None:
    """Run one search until it waits for a call that the journal cannot answer (returns None), or
    until it ends (returns its result)."""
    while True:
        try:
            call = search.coroutine.send(results)
        except StopIteration as end:
            session = search.session
            return dataclasses.replace(
                end.value, served=session.served, verdicts=dict(session.verdicts)
            )
        search.waiting_for = call
        search.calls += 1
        number = search.calls - 1
        known = journal.get(search.session.problem.id, number, call) if journal else None
        if known is None:
            return None
        search.share = search.session.share_after_call
        results = known
