"""The scoring server: any reward model behind HTTP, so that search on other machines can use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from rewards.base import NO_CONTEXT_LIMIT, TextRewardModel
from rewards.models.ensemble import TextEnsembleRewardModel
from rewards.models.folders import THINKTREE, load_tokenizer
from rewards.models.implicit import ImplicitRewardModel
from rewards.models.opening import open_reward_model
from rewards.models.rendering import as_written
from rewards.models.text_models import ConventionRewardModel, GenerativeRewardModel
from rewards.server.app import build_app
from rewards.server.batching import BatchingConfig
from rewards.server.client import IN_TEXT, IN_TOKEN_IDS, ServedDescription
from rewards.server.scoring import ServedModel
from trainer.runtime.input_identity import fingerprint_of
from trainer.runtime.web_server import serve_until_stopped

SHUTDOWN_SECONDS = 30  # for requests in flight when the server is told to stop


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Which reward model is served, and where. There is no authentication."""

    reward_model: str
    """Folder, hub id or YAML description of the reward model."""
    host: str = "127.0.0.1"
    """Address to listen on; it should be one that only allowed users can reach."""
    port: int = 8100
    """Port to listen on."""
    device: str | None = None
    """torch's name of a device; null: an accelerator if there is one, else the CPU."""
    max_tokens: int = 0
    """Maximum tokens of a request; longer ones are refused. 0: the model's context."""

    def __post_init__(self) -> None:
        if not 1 <= self.port < 2**16:
            raise ValueError(f"port is {self.port}; it must be in [1, 65535]")
        if self.max_tokens < 0:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must not be negative")


def serve(config: ServeConfig, batching: BatchingConfig) -> None:
    """Serve until SIGTERM or SIGINT. The port is open while the model loads.

    Raises the errors of loading the model.
    """
    serve_until_stopped(
        lambda ended: build_app(partial(_load, config, batching), batching, ended),
        host=config.host,
        port=config.port,
        shutdown_seconds=SHUTDOWN_SECONDS,
    )


def _load(config: ServeConfig, batching: BatchingConfig) -> ServedModel:
    from accelerate import Accelerator

    served = open_served(
        config.reward_model,
        config.device or Accelerator().device,
        max_tokens=config.max_tokens,
        max_requests=batching.max_waiting,
    )
    said = served.description
    print(
        f"{said.reward_model} ({said.convention}, fingerprint {said.fingerprint}) is served at "
        f"http://{config.host}:{config.port}",
        flush=True,
    )
    return served


def open_served(name: str, device: Any, *, max_tokens: int, max_requests: int) -> ServedModel:
    """A reward model that is ready to be served. Our models read token ids; with their folder's
    tokenizer they also take text. Raises the errors of `open_reward_model`, and ValueError if
    `max_tokens` cannot be enforced on the model."""
    loaded = open_reward_model(name, device)
    text_model, whole_prompt = loaded.text_model, loaded.whole_prompt
    if loaded.convention == THINKTREE and loaded.token_model is not None:
        context = loaded.max_context or NO_CONTEXT_LIMIT
        render = as_written(load_tokenizer(name))
        text_model, whole_prompt = ConventionRewardModel(loaded.token_model, render, context), True
    limits = [_limit(model, max_tokens) for model in _parts(text_model)]
    limits += [loaded.max_context] if loaded.token_model is not None else []
    limits += [max_tokens] if max_tokens else []
    asked_in = {IN_TOKEN_IDS: loaded.token_model, IN_TEXT: text_model}
    return ServedModel(
        description=ServedDescription(
            reward_model=name,
            convention=loaded.convention,
            fingerprint=fingerprint_of(name),
            asked_in=tuple(kind for kind, model in asked_in.items() if model is not None),
            whole_prompt=whole_prompt,
            vocab_size=loaded.vocab_size,
            max_tokens=min((limit for limit in limits if 0 < limit < NO_CONTEXT_LIMIT), default=0),
            max_requests=max_requests,
        ),
        token_model=loaded.token_model,
        text_model=text_model,
    )


def _parts(model: TextRewardModel | None) -> Iterator[TextRewardModel]:
    """The members of an ensemble, or the model itself."""
    if isinstance(model, TextEnsembleRewardModel):
        for member in model.members:
            yield from _parts(member)
    elif model is not None:
        yield model


def _limit(model: TextRewardModel, max_tokens: int) -> int:
    """The most tokens that the model now takes, at most `max_tokens`; 0 if another server
    decides."""
    if not isinstance(model, ConventionRewardModel | GenerativeRewardModel | ImplicitRewardModel):
        if max_tokens:
            raise ValueError(
                f"max_tokens is {max_tokens}, but {type(model).__name__} asks another server, and "
                "that server limits the length of a request"
            )
        return 0
    model.max_tokens = min(model.max_tokens, max_tokens or NO_CONTEXT_LIMIT)
    return model.max_tokens
