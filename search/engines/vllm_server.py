"""Generation by vLLM servers, with token ids in both directions (docs/engines.md).

Every sample is a request of its own, and its seed is a hash of (seed, problem, node, index). A
server gives the log-probability of every token at temperature 1. Its entropies are not known: the
entropy of a token's distribution is estimated by minus the log-probability of the token, which is
its mean for samples at temperature 1.

Usage counts what the requests need, as with the engine that decodes here: it depends on the search
alone. What the servers computed and what they took from their caches is in `ServedTokens`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from data.flops import FlopModel
from data.types import ModelUsage, ServedTokens, StopReason
from search.base import ChoiceRequest, ChoiceResult, SampleRequest, SampleResult
from search.engines.costs import choice_usage
from search.engines.model_server import EngineRefused, ModelServers
from search.engines.sampled_rows import Row
from search.engines.server_engine import ServerEngine
from search.engines.vllm_protocol import Completion, only_token
from search.noise import row_key


class VLLMServerEngine(ServerEngine[Completion]):
    """Implements `search.continuous.AsyncEngine`. `unknown_ids` are the ids of the model that its
    tokenizer lacks: they are never sampled."""

    def __init__(
        self,
        servers: ModelServers[Completion],
        tokenizer: Any,
        flops: FlopModel,
        *,
        seed: int,
        context_length: int,
        vocab_size: int,
        unknown_ids: Sequence[int] = (),
    ) -> None:
        super().__init__(
            servers,
            tokenizer,
            flops,
            seed=seed,
            context_length=context_length,
            vocab_size=vocab_size,
        )
        self._always: dict[str, Any] = {"stop_token_ids": sorted(self.end_token_ids)}
        if unknown_ids:
            self._always["logit_bias"] = dict.fromkeys(map(str, unknown_ids), -100.0)

    async def sample(self, problem: str, request: SampleRequest, order: int = 0) -> SampleResult:
        """Raises the errors of `ServerEngine.answers`. EngineRefused also for a server with another
        policy."""
        answers = await self.answers(problem, request, order)
        rows = [
            self._row(request, index, answer)
            for index, answer in enumerate(answers, start=request.first_index)
        ]
        length = len(request.prefix)
        return SampleResult(
            samples=tuple(row.sample(with_draws=False) for row in rows),
            usage=self.sample_usage(length, [len(row.token_ids) for row in rows]),
            served=_served(length, answers),
        )

    async def choose(self, problem: str, request: ChoiceRequest, order: int = 0) -> ChoiceResult:
        """After a prefix that fills the context, a server gives no token: the probabilities are
        NaN. Raises ValueError for an empty prefix and for one that is longer than the context, and
        the errors of `sample`."""
        length = len(request.prefix)
        if not 1 <= length <= self.context_length:
            raise ValueError(
                f"problem {problem}: the prefix has {length} tokens; it must have 1 to "
                f"{self.context_length}"
            )
        if length == self.context_length:
            unknown = (math.nan,) * len(request.options)
            return ChoiceResult(probabilities=unknown, usage=ModelUsage())
        server = self.servers.of(problem)
        await server.check()
        self.check_room(problem, length + 1)
        answers = await asyncio.gather(
            *(server.complete(only_token(request.prefix, id), order) for id in request.options)
        )
        return ChoiceResult(
            probabilities=tuple(math.exp(answer.logprobs[0]) for answer in answers),
            usage=choice_usage(self.flops, length),
            served=_served(length, answers),
        )

    def fields(self, problem: str, request: SampleRequest, index: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "prompt": list(request.prefix),
            "max_tokens": self.new_tokens(request),
            "temperature": request.temperature,
            "seed": row_key(self.seed, problem, request.node, index),
            **self._always,
        }
        if request.stop_at_step:
            fields |= {"stop": [self.step_delimiter], "include_stop_str_in_output": True}
        return fields

    def _row(self, request: SampleRequest, index: int, answer: Completion) -> Row:
        """The sample of an answer. It ends where the engine that decodes here would end it: a
        server may add tokens after the text that ended the step."""
        row, new = Row(request=0, index=index), self.new_tokens(request)
        for token, logprob in zip(answer.token_ids, answer.logprobs, strict=True):
            row.add(token, logprob, -logprob, ends_step=self.ends_step[token])
            if token in self.end_token_ids:
                row.stop_reason = StopReason.END_OF_SOLUTION
            elif len(request.prefix) + len(row.token_ids) >= self.context_length:
                row.stop_reason = StopReason.CONTEXT
            elif request.stop_at_step and self.ends_step[token]:
                row.stop_reason = StopReason.STEP_END
            elif len(row.token_ids) >= new:
                row.stop_reason = StopReason.LENGTH
            if row.stop_reason is not None:
                return row
        # The text of several tokens ended the step, such as a line break after half a character.
        if not request.stop_at_step or answer.stop != self.step_delimiter:
            raise EngineRefused(
                f"a server ended a sample of {len(row.token_ids)} tokens because of "
                f"{answer.stop!r}, which was not asked for"
            )
        row.stop_reason = StopReason.STEP_END
        return row


def _served(length: int, answers: Sequence[Completion]) -> ServedTokens:
    cached = sum(answer.cached_tokens for answer in answers)
    return ServedTokens(
        requests=len(answers),
        computed_tokens=length * len(answers) - cached,
        cached_tokens=cached,
        generated_tokens=sum(len(answer.token_ids) for answer in answers),
    )
