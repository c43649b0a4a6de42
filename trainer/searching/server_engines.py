"""The engines of searches that ask servers: their settings, and how they are opened."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from data.flops import flop_model
from data.token_text import known_token_ids
from rewards.base import NO_CONTEXT_LIMIT
from rewards.models.vocabulary import unknown_token_ids
from search.engines.model_server import AskedModel, ModelServers, ServerSettings
from search.engines.openai_protocol import OpenAIDialect
from search.engines.openai_server import OpenAIEngine
from search.engines.vllm_protocol import KnownLogprobs, VLLMDialect
from search.engines.vllm_server import VLLMServerEngine
from trainer.models.loading import load_policy, policy_shape
from trainer.runtime.manifests import hash_input, hash_value

ENGINES = ("transformers", "vllm_server", "openai")
PROMPTS, PROMPT_TOKENS = 4, 8  # what a server's weights are compared on
INEXACT = "text goes in and out: tokens are encoded again, and the server's defaults are its own"
PREFIX = "thinktree-"  # of the name of a served policy that names its content


@dataclass(frozen=True, kw_only=True)
class SearchEngineConfig:
    """Which engine samples for searches. docs/engines.md shows how to start a vLLM server."""

    engine: str = "transformers"
    """Engine that samples: transformers (in this process), vllm_server or openai (inexact)."""
    engine_url: str | None = None
    """Address of the server, http://host:port, or several with commas between."""
    engine_model: str | None = None
    """Name that the server of the engine openai gives the model; null: that of the policy."""
    engine_key_variable: str = ""
    """Environment variable with the key of the server of the engine openai; empty: no key."""
    engine_in_flight: int = 256
    """Requests that wait for one server at the same time."""
    engine_wait_seconds: float = 300.0
    """Seconds to wait for a server that does not answer."""
    engine_timeout_seconds: float = 300.0
    """Limit of one answer of the server, in seconds; then the request is sent again."""
    engine_compare_weights: bool = True
    """Load the policy once, on the CPU, to compare its log-probabilities with the server's."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; allowed: {', '.join(ENGINES)}")
        if (self.engine != "transformers") != bool(self.addresses):
            raise ValueError(
                f"engine is {self.engine!r} and engine_url is {self.engine_url!r}: vllm_server "
                "and openai need an address, and transformers takes none"
            )
        for key in ("engine_model", "engine_key_variable"):
            if getattr(self, key) and self.engine != "openai":
                raise ValueError(
                    f"{key} is {getattr(self, key)!r}, but engine is {self.engine!r}: only openai "
                    "takes it"
                )
        if self.engine_key_variable and self.engine_key_variable not in os.environ:
            raise ValueError(
                f"engine_key_variable is {self.engine_key_variable!r}; the environment has no such "
                "variable"
            )
        for address in self.addresses:
            if not address.startswith(("http://", "https://")):
                raise ValueError(
                    f"engine_url holds {address!r}; an address has the form http://host:port"
                )
        if self.engine_in_flight < 1:
            raise ValueError(f"engine_in_flight is {self.engine_in_flight}; it must be at least 1")
        if not (self.engine_wait_seconds >= 0 and self.engine_timeout_seconds > 0):
            raise ValueError(
                f"engine_wait_seconds is {self.engine_wait_seconds} and engine_timeout_seconds is "
                f"{self.engine_timeout_seconds}; the first must not be negative, the other must "
                "be positive"
            )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the servers, without a last slash and without /v1."""
        parts = [part.strip().rstrip("/") for part in (self.engine_url or "").split(",")]
        return tuple(part.removesuffix("/v1") for part in parts if part)

    @property
    def recorded(self) -> tuple[RecordedEngine | InexactEngine, ...]:
        """What a stage records among the settings that decide its result. An address decides
        nothing: a stage may continue with another server of the same policy."""
        if self.engine == "openai":
            return (InexactEngine(engine_model=self.engine_model),)
        return () if self.engine == "transformers" else (RecordedEngine(engine=self.engine),)

    @property
    def patience(self) -> ServerSettings:
        """How the servers are asked."""
        key = os.environ[self.engine_key_variable] if self.engine_key_variable else ""
        return ServerSettings(
            in_flight=self.engine_in_flight,
            wait_seconds=self.engine_wait_seconds,
            timeout_seconds=self.engine_timeout_seconds,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )


@dataclass(frozen=True, kw_only=True)
class RecordedEngine:
    """The engine of a stage's searches, if it is not the default one."""

    engine: str


@dataclass(frozen=True, kw_only=True)
class InexactEngine:
    """The engine openai, and in which way its samples are not those of the policy's tokens."""

    engine_model: str | None
    engine: str = "openai"
    engine_inexact: str = INEXACT


IN_PROCESS = SearchEngineConfig()


def open_vllm_servers(
    config: SearchEngineConfig, policy: str, *, seed: int, max_context: int
) -> VLLMServerEngine:
    """The engine that asks these servers for samples of `policy`. Waits for the servers.

    `max_context` limits the context, in tokens; 0: that of the model. Raises EngineRefused for a
    server with another model or other weights, and EngineUnavailable for one that does not answer.
    """
    if config.engine_compare_weights:
        model, tokenizer = load_policy(policy, torch.float32)
    else:
        model, tokenizer = policy_shape(policy)
    unknown = unknown_token_ids(model, tokenizer)
    known = _known_logprobs(model, tokenizer, compare=config.engine_compare_weights)
    servers = ModelServers(
        config.addresses, _asked_model(policy), config.patience, VLLMDialect(policy, known)
    )
    _choose(servers)
    return VLLMServerEngine(
        servers,
        tokenizer,
        flop_model(model),
        seed=seed,
        context_length=_context(model, max_context),
        vocab_size=model.config.get_text_config().vocab_size,
        unknown_ids=unknown,
    )


def open_openai_servers(
    config: SearchEngineConfig, policy: str, *, seed: int, max_context: int
) -> OpenAIEngine:
    """The engine that asks these servers for texts of `policy`, whose tokenizer and sizes are read
    here. Waits for the servers. Raises the errors of `open_vllm_servers`, but weights are not
    compared."""
    model, tokenizer = policy_shape(policy)
    name = config.engine_model
    asked = _asked_model(policy)
    if name is not None:
        asked = AskedModel(
            name=name,
            accepts=lambda served: served == name,
            as_served=lambda: f"engine_model is {name!r}",
        )
    dialect = OpenAIDialect()
    servers = ModelServers(config.addresses, asked, config.patience, dialect)
    _choose(servers)
    return OpenAIEngine(
        servers,
        dialect,
        tokenizer,
        flop_model(model),
        seed=seed,
        context_length=_context(model, max_context),
        vocab_size=model.config.get_text_config().vocab_size,
    )


def _choose(servers: ModelServers[Any]) -> None:
    async def check() -> None:
        try:
            await servers.choose_servers()
        finally:
            await servers.close()

    asyncio.run(check())


def _context(model: Any, max_context: int) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(limit or NO_CONTEXT_LIMIT, max_context or NO_CONTEXT_LIMIT)


def _known_logprobs(model: Any, tokenizer: Any, *, compare: bool) -> KnownLogprobs:
    """What a server's weights are compared on: the log-probabilities of `model`, or without
    `compare` those that the first server gives."""
    # Random ids are no text, but they tell weights apart, and every vocabulary has some.
    dice = random.Random(0)
    known = sorted(known_token_ids(tokenizer))
    prompts = [tuple(dice.choices(known, k=PROMPT_TOKENS)) for _ in range(PROMPTS)]
    if compare:
        found = [_likeliest(model, prompt) for prompt in prompts]
    else:
        found = [(tuple(dice.sample(known, k=2)), (0.0, 0.0)) for _ in prompts]
    return KnownLogprobs(
        prompts=tuple(prompts),
        tokens=tuple(tokens for tokens, _ in found),
        logprobs=tuple(logprobs for _, logprobs in found) if compare else None,
    )


def _asked_model(policy: str) -> AskedModel:
    """The policy as its servers are asked for it."""

    @cache
    def served_name() -> str:
        return f"{PREFIX}{hash_value(hash_input(policy))[:16]}"

    def accepts(name: str) -> bool:
        if name == policy or _one_folder(Path(name), Path(policy)):
            return True
        return name.startswith(PREFIX) and name == served_name()

    def as_served() -> str:
        return (
            f"start it with --model {policy}, or where the folder has another path there, with "
            f"--served-model-name {served_name()}"
        )

    return AskedModel(name=policy, accepts=accepts, as_served=as_served)


def _one_folder(first: Path, second: Path) -> bool:
    return first.is_dir() and second.is_dir() and first.resolve() == second.resolve()


@torch.inference_mode()
def _likeliest(model: Any, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The two likeliest tokens after a prompt, and their log-probabilities in nats."""
    logits_V = model(input_ids=torch.tensor([prompt])).logits[0, -1].float()
    best = torch.log_softmax(logits_V, dim=-1).topk(2)
    return tuple(best.indices.tolist()), tuple(best.values.tolist())
