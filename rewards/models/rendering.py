"""A problem and its steps as the token ids a reward model is asked with, and where it is read.

Text is encoded as a whole, and a step's token found by its place in the text: the same sign may
stand anywhere else, and tokenizers merge across the ends of pieces. A chat template or a step tag
is made of special tokens, and a model's own text could spell them out, so they are taken out of it.
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
    """`step_ends[i]` is the position in `token_ids` at which step i is read; the first
    `prompt_length` ids are the problem's."""

    token_ids: tuple[int, ...]
    step_ends: tuple[int, ...]
    prompt_length: int = 0


Render = Callable[[SteppedSolution], Rendering]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids, and the character of the text at which each begins."""

    token_ids: tuple[int, ...]
    starts: tuple[int, ...]

    def at(self, character: int) -> int:
        """The (last) token that holds this character."""
        return bisect_right(self.starts, character) - 1


def encode_with_places(tokenizer: Any, text: str, *, add_special_tokens: bool) -> Encoded:
    """Raises ValueError for a tokenizer that does not say where its tokens stand."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where in a text its tokens stand; a "
            "tokenizer.json does"
        )
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
    starts: list[int] = []
    for start, end in encoded["offset_mapping"]:
        # A token added around the text has no place (0, 0): it stands where the last one does.
        starts.append(int(start) if end > start or not starts else starts[-1])
    return Encoded(token_ids=tuple(encoded["input_ids"]), starts=tuple(starts))


def single_token(tokenizer: Any, text: str) -> int:
    """The id of a text that is one token. Raises ValueError where it is several."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"{text!r} is {len(ids)} tokens of the reward model's tokenizer; this convention needs "
            "it to be one: is it another model's convention?"
        )
    return ids[0]


def without_special_tokens(tokenizer: Any, *more: str) -> Callable[[str], str]:
    """A function that takes the texts of special tokens, and `more`, out of a text."""
    added: list[Any] = list(tokenizer.added_tokens_decoder.values())
    texts = {*map(str, tokenizer.all_special_tokens), *more}
    texts |= {str(token.content) for token in added if token.special}
    longest_first = sorted((text for text in texts if text), key=len, reverse=True)
    if not longest_first:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, longest_first)))

    def clean(text: str) -> str:
        while pattern.search(text):  # what is left may spell another one
            text = pattern.sub("", text)
        return text

    return clean


def chat(tokenizer: Any, turns: Sequence[tuple[str, str]], *, answer_next: bool = False) -> str:
    """(role, content) turns in the tokenizer's chat template; with `answer_next` up to where the
    assistant's next answer begins. Raises ValueError without a chat template."""
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
    """The prompt and the steps as they are, each read at its last token: our own reward models
    asked in text. A step without text is read where the last one is.

    A finished solution's last step ends with the end token where the policy samples it; text does
    not say whether it was there, so it is left out.
    """
    return _extended(tokenizer, lambda prompt: prompt)


def continued(tokenizer: Any) -> Render:
    """The problem as a user's turn where the tokenizer has a chat template, else its text; then the
    steps as they are, each read at its last token: for models trained as policies are."""
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
