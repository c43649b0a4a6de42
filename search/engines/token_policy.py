"""What every engine knows of its policy without asking the model: texts, limits and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.flops import FlopModel
from data.steps import step_ends
from data.token_text import TokenText
from data.types import ModelUsage
from search.base import SampleRequest
from search.engines.costs import sample_usage


class TokenPolicy:
    """Implements `search.base.Policy` with a tokenizer. Engines derive from it. `context_length` is
    in tokens, and `ends_step` says of each token id whether it ends a step.

    Raises ValueError for a tokenizer without an end-of-sequence token.
    """

    def __init__(
        self,
        tokenizer: Any,
        flops: FlopModel,
        *,
        seed: int,
        context_length: int,
        step_delimiter: str = "\n",
    ) -> None:
        self.tokenizer, self.flops = tokenizer, flops
        self.step_delimiter = step_delimiter
        self._seed, self._context_length = seed, context_length
        self._text = TokenText(tokenizer)
        if self._text.end_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token")
        self._end_token_id: int = self._text.end_token_id
        self._end_token_ids = self._text.end_token_ids
        self._texts = self._text.token_texts()
        self.ends_step = [step_delimiter in text for text in self._texts]

    @property
    def end_token_id(self) -> int:
        return self._end_token_id

    @property
    def end_token_ids(self) -> frozenset[int]:
        return self._end_token_ids

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
        """Token ids of a text that nothing precedes. Raises the errors of `TokenText`."""
        return self._text.encode_prompt(text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that follows other text. Raises ValueError for text that the
        vocabulary lacks; the message names that text."""
        return self._text.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text that generated ids add to the text before them, without end tokens."""
        return self._text.decode(token_ids)

    def decode_prompt(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt's ids."""
        return self._text.decode_prompt(token_ids)

    def step_ends(self, token_ids: Sequence[int]) -> list[int]:
        """The offset of the last token of each step (see `data.steps.step_ends`)."""
        return step_ends([self._texts[token] for token in token_ids], self.step_delimiter)

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage:
        return sample_usage(self.flops, prefix_length, lengths)

    def prefix_flops(self, length: int) -> float:
        return self.flops.forward(0, length, outputs=0)

    def check_sample(self, problem: str, request: SampleRequest) -> None:
        """Raises ValueError for a prefix of fewer than 2 tokens, for a prefix that fills the
        context, and for a request of 0 samples or 0 tokens."""
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
