"""What `POST /score` takes. Strict: an unknown key, a missing one or a value of another type is an
error that names its place."""

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
    """JSON can spell half a surrogate pair, which no tokenizer reads."""
    text.encode()  # raises a ValueError
    return text


Text = Annotated[str, AfterValidator(_whole)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextRequest(_Strict):
    """A problem and a solution cut into steps, each with its delimiter (`SteppedSolution`): one
    score a step."""

    prompt: Text
    steps: list[Text] = Field(min_length=1)

    def question(self) -> SteppedSolution:
        return SteppedSolution(prompt=self.prompt, steps=tuple(self.steps))


class TokenRequest(_Strict):
    """Prompt and solution as the ids of the model's own vocabulary: one score at each of the
    positions `step_ends`."""

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
    """So that an error names what is wrong with the kind of request that was meant."""
    in_ids = isinstance(value, dict) and ("token_ids" in value or "step_ends" in value)
    return IN_TOKEN_IDS if in_ids else IN_TEXT


class ScoreBody(_Strict):
    """`fingerprint`, if given, is that of the model which is to score."""

    requests: list[
        Annotated[
            Annotated[TextRequest, Tag(IN_TEXT)] | Annotated[TokenRequest, Tag(IN_TOKEN_IDS)],
            Discriminator(_kind),
        ]
    ] = Field(min_length=1)
    fingerprint: str = ""
