"""Render a problem and its steps as the token ids that a reward model reads, with the positions at
which the steps are scored.

A text is encoded as a whole, and the token of a step is located by its character offset in the
text. The same tag may also appear elsewhere in the text, and tokenizers merge across the ends of
pieces, so a search for the tag or separate encoding would be wrong. Chat templates and step tags
use special tokens. A solution could contain the texts of these tokens, so they are removed from it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.types import SteppedSolution


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """The input of a reward model. `step_ends[i]` is the position in `token_ids` at which step i is
    scored. The first `prompt_length` ids are the problem."""

    token_ids: tuple[int, ...]
    step_ends: tuple[int, ...]
    prompt_length: int = 0


Render = Callable[[SteppedSolution], Rendering]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids, and the offset of the character at which each token begins."""

    token_ids: tuple[int, ...]
    starts: tuple[int, ...]

    def at(self, character: int) -> int:
        """The index of the last token that begins at or before this character."""
        return bisect_right(self.starts, character) - 1


def encode_with_places(tokenizer: Any, text: str, *, add_special_tokens: bool) -> Encoded:
    """Encode a text with the offset of each token. Raises ValueError for a tokenizer that gives no
    offsets."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not give the offsets of its tokens; a tokenizer with "
            "a tokenizer.json does"
        )
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
    starts: list[int] = []
    for start, end in encoded["offset_mapping"]:
        # A token that was added around the text has no offset: (0, 0). It gets the offset of the
        # token before it.
        starts.append(int(start) if end > start or not starts else starts[-1])
    return Encoded(token_ids=tuple(encoded["input_ids"]), starts=tuple(starts))


def single_token(tokenizer: Any, text: str) -> int:
    """The id of a text that is one token. Raises ValueError when it is several tokens."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"{text!r} is {len(ids)} tokens of the reward model's tokenizer, but this convention "
            "needs it to be one; does the model follow another convention?"
        )
    return ids[0]


def without_special_tokens(tokenizer: Any, *more: str) -> Callable[[str], str]:
    """A function that removes the texts of special tokens, and the texts `more`, from a text."""
    added: list[Any] = list(tokenizer.added_tokens_decoder.values())
    texts = {*map(str, tokenizer.all_special_tokens), *more}
    texts |= {str(token.content) for token in added if token.special}
    longest_first = sorted((text for text in texts if text), key=len, reverse=True)
    if not longest_first:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, longest_first)))

    def clean(text: str) -> str:
        while pattern.search(text):  # the remaining text may contain a new one
            text = pattern.sub("", text)
        return text

    return clean


def chat(tokenizer: Any, turns: Sequence[tuple[str, str]], *, answer_next: bool = False) -> str:
    """The text of (role, content) turns in the tokenizer's chat template. With `answer_next`, the
    text ends where the assistant's next answer begins. Raises ValueError when the tokenizer has no
    chat template."""
    if tokenizer.chat_template is None:
        raise ValueError(
            "the reward model's tokenizer has no chat template, which this convention needs"
        )
    return tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        tokenize=False,
        add_generation_prompt=answer_next,
    )


def as_written(tokenizer: Any) -> Render:
    """The prompt and the steps, unchanged. Each step is scored at its last token. A step without
    text is scored at the same token as the step before it. Reward models of this project that read
    text use this.

    Text does not show whether the policy sampled the end token after the last step, so the end
    token is left out.
    """
    return _extended(tokenizer, lambda prompt: prompt)


def continued(tokenizer: Any) -> Render:
    """The problem, then the steps, unchanged. Each step is scored at its last token. The problem is
    a user's turn when the tokenizer has a chat template, else text. This is for models that were
    trained like policies."""
    if tokenizer.chat_template is None:
        return as_written(tokenizer)
    return _extended(
        tokenizer, lambda prompt: chat(tokenizer, [("user", prompt.strip())], answer_next=True)
    )


def _extended(tokenizer: Any, begin: Callable[[str], str]) -> Render:
    clean = without_special_tokens(tokenizer)

    def render(solution: SteppedSolution) -> Rendering:
        text = begin(clean(solution.prompt))
        prompt_end = len(text)
        ends: list[int] = []
        for step in solution.steps:
            text += clean(step)
            ends.append(len(text) - 1)
        encoded = encode_with_places(tokenizer, text, add_special_tokens=False)
        return Rendering(
            token_ids=encoded.token_ids,
            step_ends=tuple(max(0, encoded.at(end)) for end in ends),
            prompt_length=encoded.at(prompt_end - 1) + 1,
        )

    return render
