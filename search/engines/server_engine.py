"""What the engines that ask servers have in common: every sample is a request of its own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from data.flops import FlopModel
from search.base import SampleRequest
from search.engines.model_server import EngineRefused, ModelServers
from search.engines.token_policy import TokenPolicy

A = TypeVar("A")  # an answer


class ServerEngine(TokenPolicy, ABC, Generic[A]):
    """A policy behind `servers`. `context_length` is in tokens."""

    def __init__(
        self,
        servers: ModelServers[A],
        tokenizer: Any,
        flops: FlopModel,
        *,
        seed: int,
        context_length: int,
        vocab_size: int,
    ) -> None:
        super().__init__(tokenizer, flops, seed=seed, context_length=context_length)
        self.servers, self.vocab_size = servers, vocab_size

    def check_room(self, problem: str, tokens: int) -> None:
        self.servers.check_room(problem, tokens)

    async def close(self) -> None:
        await self.servers.close()

    async def answers(self, problem: str, request: SampleRequest, order: int) -> Sequence[A]:
        """One answer per sample, in the order of their indices. Raises the errors of
        `check_sample`, EngineRefused for a request without replacement, and EngineUnavailable."""
        self.check_sample(problem, request)
        if request.excluded or request.with_draws:
            raise EngineRefused(
                "samples without replacement need the engine transformers: a server does not say "
                "with which probability it drew a token"
            )
        server = self.servers.of(problem)
        await server.check()
        self.check_room(problem, len(request.prefix) + self.new_tokens(request))
        indices = range(request.first_index, request.first_index + request.n)
        return await asyncio.gather(
            *(server.complete(self.fields(problem, request, i), order) for i in indices)
        )

    def new_tokens(self, request: SampleRequest) -> int:
        """The most tokens that a sample of this request can have."""
        return min(request.max_new_tokens, self.context_length - len(request.prefix))

    @abstractmethod
    def fields(self, problem: str, request: SampleRequest, index: int) -> dict[str, Any]:
        """The body of the request for one sample."""
