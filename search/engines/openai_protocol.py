"""`POST /v1/completions` as all OpenAI-compatible servers know it: text in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

# Log-probabilities of one token per position: 0 means none to some servers.
SAMPLING: Mapping[str, Any] = {
    "n": 1,
    "stream": False,
    "echo": False,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logprobs": 1,
}
# Where servers name the string that ended a text (vLLM, SGLang); null if an end token ended it.
STOPPED_BY = ("stop_reason", "matched_stop")
PROBE = "1 + 1 ="


@dataclass(frozen=True, kw_only=True)
class TextAnswer:
    """One sampled text. `finish` is "stop" or "length". `stopped_by` is the stop string that ended
    the text, "" if there was none, and None if the server does not say.

    `token_texts` and `logprobs` (nats) are those of the server's tokens; None if it gives none.
    The counts are those of the server's `usage`; None if it has none.
    """

    text: str
    finish: str
    stopped_by: str | None
    token_texts: tuple[str, ...] | None
    logprobs: tuple[float, ...] | None
    prompt_tokens: int | None
    generated_tokens: int | None
    cached_tokens: int


class OpenAIDialect:
    """Implements `search.engines.model_server.Dialect`.

    After a check, `names_stops` says whether all servers name the string that ended a text, and
    `gives_logprobs` whether all give log-probabilities.
    """

    always = SAMPLING
    kind = "an OpenAI-compatible server"
    probes: Sequence[Mapping[str, Any]] = (
        {"prompt": PROBE, "max_tokens": 1, "temperature": 0.0, "seed": 0},
    )

    def __init__(self) -> None:
        self.names_stops = self.gives_logprobs = True

    def read(self, body: Any) -> TextAnswer:
        choice = body["choices"][0]
        text, finish = choice["text"], choice["finish_reason"]
        if not isinstance(text, str) or finish not in ("stop", "length"):
            raise ValueError(f"the text is {text!r}, the reason of the end is {finish!r}")
        key = next((key for key in STOPPED_BY if key in choice), None)
        stopped_by = choice[key] if key else None
        token_texts, logprobs = _logprobs(choice.get("logprobs"))
        usage = cast("dict[str, Any]", body.get("usage") or {})
        details = cast("dict[str, Any]", usage.get("prompt_tokens_details") or {})
        counted = {"prompt_tokens", "completion_tokens"} <= usage.keys()
        return TextAnswer(
            text=text,
            finish=finish,
            stopped_by=None if key is None else stopped_by if isinstance(stopped_by, str) else "",
            token_texts=token_texts,
            logprobs=logprobs,
            prompt_tokens=int(usage["prompt_tokens"]) if counted else None,
            generated_tokens=int(usage["completion_tokens"]) if counted else None,
            cached_tokens=int(details.get("cached_tokens") or 0),
        )

    def check(self, address: str, answers: Sequence[TextAnswer]) -> None:
        """Learn what the server says. Text does not tell weights apart: none is refused."""
        for answer in answers:
            self.names_stops = self.names_stops and answer.stopped_by is not None
            self.gives_logprobs = self.gives_logprobs and answer.logprobs is not None


def _logprobs(given: Any) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """The texts of the tokens and their log-probabilities, in one of the two forms that servers
    use: two lists, or a list of tokens. None, None if there are none."""
    if not given:
        return None, None
    if given.get("content"):
        rows = [(str(row["token"]), row["logprob"]) for row in given["content"]]
    elif given.get("tokens") and given.get("token_logprobs"):
        rows = list(zip(map(str, given["tokens"]), given["token_logprobs"], strict=True))
    else:
        return None, None
    if any(value is None for _, value in rows):
        return None, None
    values = tuple(float(value) for _, value in rows)
    if any(math.isnan(value) for value in values):
        raise ValueError("a log-probability is no number")
    return tuple(text for text, _ in rows), values
