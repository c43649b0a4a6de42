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
from data.steps import step_ends
from data.token_text import TokenText
from data.types import ModelUsage, ServedTokens, StopReason
from search.base import ChoiceRequest, ChoiceResult, SampleRequest, SampleResult
from search.engines.costs import choice_usage, sample_usage
from search.engines.model_server import (
    Completion,
    EngineRefused,
    ModelServers,
    only_token,
)
from search.engines.sampled_rows import Row
from search.noise import row_key


class VLLMServerEngine:
    """Implements `search.continuous.AsyncEngine`. `unknown_ids` are the ids of the model that its
    tokenizer lacks: they are never sampled."""

    def __init__(
        self,
        servers: ModelServers,
        tokenizer: Any,
        flops: FlopModel,
        *,
        seed: int,
        context_length: int,
        vocab_size: int,
        unknown_ids: Sequence[int] = (),
        step_delimiter: str = "\n",
    ) -> None:
        self.servers = servers
        self.tokenizer = tokenizer
        self.flops = flops
        self.vocab_size = vocab_size
        self._seed = seed
        self._context_length = context_length
        self._step_delimiter = step_delimiter
        self._text = TokenText(tokenizer)
        if self._text.end_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token")
        self._end_token_id: int = self._text.end_token_id
        self._texts = self._text.token_texts()
        self._ends_step = [step_delimiter in text for text in self._texts]
        self._always: dict[str, Any] = {"stop_token_ids": sorted(self._text.end_token_ids)}
        if unknown_ids:
            self._always["logit_bias"] = dict.fromkeys(map(str, unknown_ids), -100.0)

    @property
    def end_token_id(self) -> int:
        return self._end_token_id

    @property
    def end_token_ids(self) -> frozenset[int]:
        return self._text.end_token_ids

    @property
    def begin_ids(self) -> tuple[int, ...]:
        return self._text.begin_ids

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def seed(self) -> int:
        return self._seed

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self._text.encode_prompt(text)

    def encode(self, text: str) -> tuple[int, ...]:
        return self._text.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._text.decode(token_ids)

    def decode_prompt(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt's ids."""
        return self._text.decode_prompt(token_ids)

    def step_ends(self, token_ids: Sequence[int]) -> list[int]:
        return step_ends([self._texts[token] for token in token_ids], self._step_delimiter)

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage:
        return sample_usage(self.flops, prefix_length, lengths)

    def prefix_flops(self, length: int) -> float:
        return self.flops.forward(0, length, outputs=0)

    def check_room(self, problem: str, tokens: int) -> None:
        """Raises EngineRefused if the problem's server was started with a smaller context. Before
        a server was asked for its context, nothing is known of it."""
        server = self.servers.of(problem)
        if 0 < server.context < tokens:
            raise EngineRefused(
                f"the server {server.address} was started with a context of {server.context} "
                f"tokens, but problem {problem} needs {tokens}: start it with --max-model-len "
                f"{tokens} or more"
            )

    async def sample(self, problem: str, request: SampleRequest, order: int = 0) -> SampleResult:
        """Raises ValueError for a prefix of fewer than 2 tokens, for one that fills the context and
        for a request of 0 samples or 0 tokens, EngineRefused for a request without replacement and
        for a server with another policy, and EngineUnavailable."""
        length = len(request.prefix)
        if length < 2 or request.n < 1 or request.max_new_tokens < 1:
            raise ValueError(
                f"problem {problem}: a sample request needs a prefix of at least 2 tokens (has "
                f"{length}), n >= 1 (has {request.n}) and max_new_tokens >= 1 (has "
                f"{request.max_new_tokens})"
            )
        if length >= self.context_length:
            raise ValueError(
                f"problem {problem}: a prefix of {length} tokens leaves no room in the model's "
                f"context of {self.context_length}"
            )
        if request.excluded or request.with_draws:
            raise EngineRefused(
                "samples without replacement need the engine transformers: a vLLM server does not "
                "say with which probability it drew a token"
            )
        new = min(request.max_new_tokens, self.context_length - length)
        server = self.servers.of(problem)
        await server.check()
        self.check_room(problem, length + new)
        indices = range(request.first_index, request.first_index + request.n)
        answers = await asyncio.gather(
            *(server.complete(self._fields(problem, request, i, new), order) for i in indices)
        )
        rows = [
            self._row(request, index, new, answer)
            for index, answer in zip(indices, answers, strict=True)
        ]
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

    async def close(self) -> None:
        await self.servers.close()

    def _fields(self, problem: str, request: SampleRequest, index: int, new: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "prompt": list(request.prefix),
            "max_tokens": new,
            "temperature": request.temperature,
            "seed": row_key(self.seed, problem, request.node, index),
            **self._always,
        }
        if request.stop_at_step:
            fields |= {"stop": [self._step_delimiter], "include_stop_str_in_output": True}
        return fields

    def _row(self, request: SampleRequest, index: int, new: int, answer: Completion) -> Row:
        """The sample of an answer. It ends where the engine that decodes here would end it: a
        server may add tokens after the text that ended the step."""
        row = Row(request=0, index=index)
        for token, logprob in zip(answer.token_ids, answer.logprobs, strict=True):
            row.add(token, logprob, -logprob, ends_step=self._ends_step[token])
            if token in self.end_token_ids:
                row.stop_reason = StopReason.END_OF_SOLUTION
            elif len(request.prefix) + len(row.token_ids) >= self.context_length:
                row.stop_reason = StopReason.CONTEXT
            elif request.stop_at_step and self._ends_step[token]:
                row.stop_reason = StopReason.STEP_END
            elif len(row.token_ids) >= new:
                row.stop_reason = StopReason.LENGTH
            if row.stop_reason is not None:
                return row
        # The text of several tokens ended the step, such as a line break after half a character.
        if not request.stop_at_step or answer.stop != self._step_delimiter:
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
