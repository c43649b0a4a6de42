"""Small tokenizers for models trained from scratch.

"numbers": a token per number, per sign and per line break; a number is the same token wherever it
stands, and the single spaces between tokens of a line are implied. "characters": a token per
character. Text outside the vocabulary is an error, never an unknown token. Both decode line by
line as they decode the whole, so the texts of steps join to the text of the solution.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD_TOKEN = "<pad>"
END_TOKEN = "<eos>"
SIGNS = ("+", "-", "*", "/", "=", "|", "->")
PATTERN = r"\d+|->|[^\s\d]|\n"
KINDS = ("numbers", "characters")


def build_tokenizer(kind: str, max_number: int) -> PreTrainedTokenizerFast:
    """A tokenizer with `<pad>` and `<eos>` and no beginning-of-sequence token.

    `kind` is "numbers" (0..max_number are tokens) or "characters" (max_number changes nothing).
    Raises ValueError for another kind or max_number < 1.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    if max_number < 1:
        raise ValueError(f"max_number is {max_number}; allowed: 1 or more")
    if kind == "numbers":
        texts = ["\n", *map(str, range(max_number + 1)), *SIGNS]
        pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex(PATTERN), "isolated")]
        )
        # A space before every token, then none at a line's start or end.
        decoder = decoders.Sequence(
            [
                decoders.Replace(Regex("^"), " "),
                decoders.Fuse(),
                decoders.Replace(Regex(" ?\n ?"), "\n"),
                decoders.Strip(" ", 1, 0),
            ]
        )
    else:
        texts = ["\n", " ", *"0123456789", *"+-*/=|>"]
        pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        decoder = decoders.Fuse()
    tokens = [PAD_TOKEN, END_TOKEN, *texts]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        clean_up_tokenization_spaces=False,
        # Saved with the tokenizer: older readers would add token_type_ids, which models refuse.
        model_input_names=["input_ids", "attention_mask"],
    )


def encode_strict(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of `text`, no special tokens added.

    Raises ValueError naming the text that the vocabulary lacks, or a special token spelt out in
    it.
    """
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # the tokenizers library raises plain Exception
        piece = _first_unknown(tokenizer, text)
        raise ValueError(
            f"text {text!r} cannot be encoded: {piece!r} is not in the vocabulary"
        ) from error
    special = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    for token_id in ids:
        if token_id in special:
            token = tokenizer.convert_ids_to_tokens(token_id)
            raise ValueError(
                f"text {text!r} cannot be encoded: a part of it becomes the special token {token!r}"
            )
    return tuple(ids)


def _first_unknown(tokenizer: Any, text: str) -> str:
    vocabulary = tokenizer.get_vocab()
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return next((piece for piece, _ in pieces if piece not in vocabulary), text)
