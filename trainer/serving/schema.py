"""The bodies of requests. The check is strict: an unknown key, a value of another type, and a value
that the server could not honour are errors that name the key."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Effort = Literal["low", "medium", "high"]
MAX_MESSAGES = 256
# Lists that are not used are short: each wrong item of a long one would be an error with its place.
MAX_UNUSED = 16


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn. What clients send back of an earlier answer, beside its content, is not read."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_MESSAGES)]
    name: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """`include_usage`: a last chunk holds the usage."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SearchBody(_Strict):
    """What both kinds of requests have.

    The keys after `deadline_seconds` are OpenAI's. What would change the answer is accepted at its
    neutral value only: sampling belongs to the effort level, which was measured with it. What does
    not change the answer is accepted and not used.
    """

    model: str
    reasoning_effort: Effort | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include_reasoning: bool | None = None
    deadline_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_UNUSED)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _honoured(self) -> Self:
        neutral = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
        for name, value in neutral.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(
                    f"{name} may only be {value}: sampling belongs to the effort level "
                    "(reasoning_effort)"
                )
        for name in ("stop", "logit_bias"):
            if getattr(self, name):
                raise ValueError(f"{name} is not supported: the search ends solutions itself")
        if self.max_tokens and self.max_completion_tokens:
            raise ValueError("give max_completion_tokens or max_tokens, not both")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def token_limit(self) -> int:
        """Most tokens that one answer's search may generate; 0: the level's own limits."""
        return self.max_completion_tokens or self.max_tokens or 0

    @property
    def with_usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ResponseFormat(_Strict):
    """Only text: a solution is what the policy was trained to write."""

    type: Literal["text"]


class ChatBody(SearchBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    response_format: ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=MAX_UNUSED)] | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None


class CompletionBody(SearchBody):
    """`POST /v1/completions`. The policy continues `prompt` as it is given."""

    prompt: str | Annotated[list[str], Field(min_length=1, fail_fast=True)]
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None
    best_of: None = None

    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt
