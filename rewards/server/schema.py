"""The body of `POST /score`. The check is strict: an unknown key, a missing key and a value of
another type are errors, and the message names the place."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    Tag,
    model_validator,
)

from data.types import SteppedSolution
from rewards.server.client import IN_TEXT, IN_TOKEN_IDS
from rewards.server.scoring import TokenSequence


def _whole(text: str) -> str:
    """Refuse half a surrogate pair. JSON can contain one, but no tokenizer can read it."""
    text.encode()  # raises a ValueError
    return text


Text = Annotated[str, AfterValidator(_whole)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextRequest(_Strict):
    """A problem and a solution cut into steps, each with its delimiter (see `SteppedSolution`). The
    answer has one score per step."""

    prompt: Text
    steps: list[Text] = Field(min_length=1)

    def question(self) -> SteppedSolution:
        return SteppedSolution(prompt=self.prompt, steps=tuple(self.steps))


class TokenRequest(_Strict):
    """A prompt and a solution as token ids of the model's vocabulary. The answer has one score per
    position in `step_ends`."""

    token_ids: list[NonNegativeInt] = Field(min_length=1)
    step_ends: list[NonNegativeInt] = Field(min_length=1)

    @model_validator(mode="after")
    def _ends_inside(self) -> Self:
        if max(self.step_ends) >= len(self.token_ids):
            raise ValueError(
                f"step_ends holds {max(self.step_ends)}; there are {len(self.token_ids)} token_ids"
            )
        return self

    def question(self) -> TokenSequence:
        return TokenSequence(token_ids=tuple(self.token_ids), step_ends=tuple(self.step_ends))


def _kind(value: Any) -> str:
    """The kind of a request, by its keys. An error message then describes the kind that was
    meant."""
    in_ids = isinstance(value, dict) and ("token_ids" in value or "step_ends" in value)
    return IN_TOKEN_IDS if in_ids else IN_TEXT


class ScoreBody(_Strict):
    """The body of a POST. `fingerprint`, if it is not empty, must be that of the served model."""

    requests: list[
        Annotated[
            Annotated[TextRequest, Tag(IN_TEXT)] | Annotated[TokenRequest, Tag(IN_TOKEN_IDS)],
            Discriminator(_kind),
        ]
    ] = Field(min_length=1)
    fingerprint: str = ""
