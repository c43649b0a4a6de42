"""Text to token ids and back, as a policy reads and writes it. Every stage uses `TokenText`: SFT,
labels, reward models, search, DPO and PPO.

Published tokenizers differ in ways that matter when a text is made of parts:

- Many put a beginning-of-sequence token before a text (Llama, Gemma, Mistral). A prompt has it
  once, also where a chat template has written it already. A part that follows has none.
- SentencePiece-like tokenizers (Llama-2, Mistral, CodeLlama) take a text to begin with a space:
  they put one before a text and remove one from a decoded text. A part that follows a prompt is
  therefore encoded and decoded behind other text, so that the ids of the parts are the ids of the
  whole, and a part decodes to exactly what it adds.
- Some put an end token behind every text (`add_eos_token`). A prompt never has one.
- A model may end its text with one of several tokens (`eos_token_id` is a list).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

# Texts behind which a part is encoded. The first one that no token of the part merges with is used.
ANCHORS = ("\n", "x\n", ";", "0")
END_TOKENS = "thinktree_end_token_ids"  # attribute of a loaded tokenizer: the model's end tokens


class TokenText:
    """Encodes and decodes with one tokenizer.

    `begin_ids` are the ids that the tokenizer puts before a text. `end_token_id` is the end token
    that training puts behind a solution; None if the tokenizer has none. Any of `end_token_ids`
    ends a solution.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.begin_ids = _begin_ids(tokenizer)
        self.end_token_id: int | None = tokenizer.eos_token_id
        self.end_token_ids = end_token_ids(tokenizer)
        self._in_chat = getattr(tokenizer, "chat_template", None) is not None
        self._special: frozenset[int] = frozenset(
            tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens
        )
        # A tokenizer that adds no space encodes and decodes a part as it does a whole text.
        self._before: tuple[int, ...] = _encoded(tokenizer, "1") if _adds_space(tokenizer) else ()

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """The token ids of a text that nothing precedes: `begin_ids`, once, and the text's ids.

        Raises ValueError for text that the vocabulary lacks, and the message names that text. Also
        raises ValueError for text that contains a special token. Tokenizers with a chat template
        are an exception, because the prompt of a chat contains special tokens.
        """
        ids = _encoded(self.tokenizer, text)
        size = len(self.begin_ids)
        if ids[:size] == self.begin_ids:
            ids = ids[size:]
        return self.begin_ids + self._checked(text, ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """The token ids of a text that follows other text. Raises the errors of `encode_prompt`,
        and ValueError for a tokenizer that merges the text with every text before it."""
        ids, _ = self._behind_anchor(text)
        return self._checked(text, ids)

    def encode_steps(self, steps: Sequence[str]) -> list[tuple[int, ...]]:
        """The token ids of each step of a solution. Joined, they are the ids of the joined steps.

        A token that belongs to two steps, such as a line break with the next line's indent, is in
        the earlier one, as in a sampled solution. Where that would leave a step without a token,
        or would give a step visible text of the next one, every step is encoded on its own. Raises
        the errors of `encode`.
        """
        whole = "".join(steps)
        ids, anchor = self._behind_anchor(whole)
        self._checked(whole, ids)
        of_text = _offsets(self.tokenizer, anchor + whole)
        offsets = of_text[-len(ids) :] if of_text and ids else None
        ends = list(accumulate(len(step) for step in steps))
        if offsets is None:
            return [self.encode(step) for step in steps]
        groups: list[list[int]] = [[] for _ in steps]
        at = 0
        for token, (start, end) in zip(ids, offsets, strict=True):
            start, end = start - len(anchor), end - len(anchor)
            while at < len(steps) - 1 and start >= ends[at]:
                at += 1
            if whole[ends[at] : end].strip():
                return [self.encode(step) for step in steps]
            groups[at].append(token)
        if any(step and not group for step, group in zip(steps, groups, strict=True)):
            return [self.encode(step) for step in steps]
        return [tuple(group) for group in groups]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text that ids add to the text before them, without end tokens."""
        ids = [token for token in token_ids if token not in self.end_token_ids]
        if not self._before:
            return _decoded(self.tokenizer, ids)
        before = _decoded(self.tokenizer, self._before)
        return _decoded(self.tokenizer, [*self._before, *ids])[len(before) :]

    def decode_prompt(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt's ids, without the tokens that the tokenizer puts before a text."""
        size = len(self.begin_ids)
        ids = tuple(token_ids)
        return _decoded(self.tokenizer, ids[size:] if ids[:size] == self.begin_ids else ids)

    def token_texts(self) -> list[str]:
        """The text of each token id alone; "" for an id without a token and for a token that ends
        in half a character. A step never ends in such a token, so that its text is whole."""
        texts = [
            _decoded(self.tokenizer, [token])
            for token in range(max(known_token_ids(self.tokenizer)) + 1)
        ]
        return ["" if text.endswith("\ufffd") else text for text in texts]

    def _behind_anchor(self, text: str) -> tuple[tuple[int, ...], str]:
        """The ids of a text that follows, and the text behind which it was encoded."""
        if not self._before or not text:
            return _encoded(self.tokenizer, text), ""
        for anchor in ANCHORS:
            before = _encoded(self.tokenizer, anchor)
            ids = _encoded(self.tokenizer, anchor + text)
            if ids[: len(before)] == before:
                return ids[len(before) :], anchor
        raise ValueError(
            f"text {text!r} cannot be encoded: the tokenizer merges it with the text before it"
        )

    def _checked(self, text: str, ids: tuple[int, ...]) -> tuple[int, ...]:
        if self._in_chat:
            return ids
        for token_id in ids:
            if token_id in self._special:
                token = self.tokenizer.convert_ids_to_tokens(token_id)
                raise ValueError(
                    f"text {text!r} cannot be encoded: a part of it becomes the special token "
                    f"{token!r}"
                )
        return ids


def end_token_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of the tokens that end a text: the tokenizer's end token, and the model's where the
    tokenizer was loaded with a model."""
    own: int | None = tokenizer.eos_token_id
    others: frozenset[int] = getattr(tokenizer, END_TOKENS, frozenset[int]())
    return others if own is None else others | {own}


def known_token_ids(tokenizer: Any) -> frozenset[int]:
    """The ids that the tokenizer has a token for. A model may have more, which mean nothing."""
    return frozenset(tokenizer.get_vocab().values())


def _adds_space(tokenizer: Any) -> bool:
    try:
        joined, start, end = (_encoded(tokenizer, text) for text in (";1", ";", "1"))
    except ValueError:  # a tokenizer of our own, which lacks one of these characters
        return False
    return joined != start + end


def _begin_ids(tokenizer: Any) -> tuple[int, ...]:
    try:
        bare = _encoded(tokenizer, "1")
    except ValueError:  # a tokenizer of our own
        return ()
    ids: list[int] = tokenizer.encode("1")
    for start in range(len(ids) - len(bare) + 1):
        if tuple(ids[start : start + len(bare)]) == bare:
            return tuple(ids[:start])
    return ()


def _encoded(tokenizer: Any, text: str) -> tuple[int, ...]:
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # the tokenizers library raises plain Exception
        piece = _first_unknown(tokenizer, text)
        raise ValueError(
            f"text {text!r} cannot be encoded: {piece!r} is not in the vocabulary"
        ) from error
    return tuple(ids)


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]] | None:
    """The characters of each token of a text; None for a tokenizer that cannot say."""
    if not tokenizer.is_fast:
        return None
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["offset_mapping"])


def _decoded(tokenizer: Any, token_ids: Sequence[int]) -> str:
    return tokenizer.decode(
        list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def _first_unknown(tokenizer: Any, text: str) -> str:
    vocabulary = tokenizer.get_vocab()
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return next((piece for piece, _ in pieces if piece not in vocabulary), text)
