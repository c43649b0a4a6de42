"""vLLM's dialect of `POST /v1/completions`: token ids both ways, and the comparison of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from search.engines.model_server import EngineRefused

LARGEST_GAP = 0.1  # nats, mean distance of a server's log-probabilities from the policy's
# Every key that a server would take from the model's generation_config.json is set.
SAMPLING: Mapping[str, Any] = {
    "n": 1,
    "stream": False,
    "echo": False,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logprobs": 0,
    "return_token_ids": True,
    "ignore_eos": True,
    "add_special_tokens": False,
    "skip_special_tokens": False,
}


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled continuation. `logprobs` are in nats, at temperature 1. `cached_tokens` of the
    prompt's tokens were in the server's cache; 0 if the server does not say. `stop` is the reason
    of the end: "length", the id of an end token, or the text that ended a step."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: int | str
    cached_tokens: int


@dataclass(frozen=True, kw_only=True)
class KnownLogprobs:
    """The log-probability of each of `tokens[i]` after `prompts[i]`, at temperature 1, must be
    `logprobs[i]`, in nats; where these are None, those of the first server that answers."""

    prompts: tuple[tuple[int, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...] | None


class VLLMDialect:
    """Implements `search.engines.model_server.Dialect` for the policy `name`."""

    always = SAMPLING
    kind = "vLLM 0.11 or newer"

    def __init__(self, name: str, known: KnownLogprobs) -> None:
        self._name, self._known = name, known
        self._expected = known.logprobs
        self.probes = [
            only_token(prompt, token)
            for prompt, tokens in zip(known.prompts, known.tokens, strict=True)
            for token in tokens
        ]

    def read(self, body: Any) -> Completion:
        choice = body["choices"][0]
        token_ids = tuple(int(token) for token in choice["token_ids"])
        logprobs = tuple(float(value) for value in choice["logprobs"]["token_logprobs"])
        if not token_ids or len(token_ids) != len(logprobs):
            raise ValueError(f"{len(token_ids)} token ids and {len(logprobs)} log-probabilities")
        finish, stop = choice["finish_reason"], choice.get("stop_reason")
        stop = finish if stop is None else stop
        if finish not in ("stop", "length") or not isinstance(stop, int | str):
            raise ValueError(f"the reason of the end is {finish!r}")
        details = cast("dict[str, Any]", body["usage"].get("prompt_tokens_details") or {})
        return Completion(
            token_ids=token_ids,
            logprobs=logprobs,
            stop=stop,
            cached_tokens=int(details.get("cached_tokens") or 0),
        )

    def check(self, address: str, answers: Sequence[Completion]) -> None:
        """Compare the server's log-probabilities with those that the policy must have."""
        left = [answer.logprobs[0] for answer in answers]
        found: list[tuple[float, ...]] = []
        for tokens in self._known.tokens:
            row, left = tuple(left[: len(tokens)]), left[len(tokens) :]
            if math.fsum(map(math.exp, row)) > 1.01:
                raise EngineRefused(
                    f"the server {address} gives the log-probabilities after temperature and "
                    "masks: start it with --logprobs-mode raw_logprobs (vLLM's default)"
                )
            found.append(row)
        self._expected = self._expected or tuple(found)
        pairs = [
            (a, b)
            for here, there in zip(self._expected, found, strict=True)
            for a, b in zip(here, there, strict=True)
        ]
        gap = math.fsum(abs(a - b) for a, b in pairs) / len(pairs)
        if gap > LARGEST_GAP:
            raise EngineRefused(
                f"the server {address} has other weights than the policy {self._name!r}: their "
                f"log-probabilities are {gap:.2g} nats apart (at most {LARGEST_GAP:g}); start it "
                "again with this policy"
            )


def only_token(prefix: Sequence[int], token: int) -> dict[str, Any]:
    """A request that must draw this token: its answer has the token's log-probability."""
    return {
        "prompt": list(prefix),
        "max_tokens": 1,
        "temperature": 1.0,
        "seed": 0,
        "allowed_token_ids": [token],
    }
