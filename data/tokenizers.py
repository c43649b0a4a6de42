"""Small tokenizers for models trained from scratch.

"numbers": a token per number, per sign and per line break; a number is the same token wherever it
stands, and the single spaces between tokens of a line are implied. "characters": a token per
character. Text outside the vocabulary is an error, never an unknown token. "bpe": byte pairs
(1508.07909, on bytes as in GPT-2) learnt from texts, for any text; a digit and a line break are
tokens of their own. All decode line by line as they decode the whole, so the texts of steps join to
the text of the solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD_TOKEN = "<pad>"
END_TOKEN = "<eos>"
SIGN_TOKENS = ("+", "-", "*", "/", "=", "|", "->")
PATTERN = r"\d+|->|[^\s\d]|\n"
KINDS = ("numbers", "characters", "bpe")
LEAST_VOCABULARY = 2 + 256  # the special tokens and the bytes


def build_tokenizer(
    kind: str, max_number: int, *, vocab_size: int = 2048, texts: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer with `<pad>` and `<eos>` and no beginning-of-sequence token.

    `kind` is "numbers" (0..max_number are tokens), "characters" or "bpe" (at most `vocab_size`
    tokens, learnt from `texts`, the same for the same texts). Raises ValueError for another kind,
    max_number < 1, and for "bpe" without texts or with fewer tokens than there are bytes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    if max_number < 1:
        raise ValueError(f"max_number is {max_number}; allowed: 1 or more")
    if kind == "bpe":
        return _wrapped(byte_pair_tokenizer(vocab_size, texts, (PAD_TOKEN, END_TOKEN)))
    if kind == "numbers":
        texts = ["\n", *map(str, range(max_number + 1)), *SIGN_TOKENS]
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
    return _wrapped(tokenizer)


def byte_pair_tokenizer(
    vocab_size: int, texts: Sequence[str], special_tokens: Sequence[str]
) -> Any:
    """A byte-level tokenizer of the tokenizers library, its special tokens first. Raises ValueError
    as `build_tokenizer` does."""
    if vocab_size < LEAST_VOCABULARY:
        raise ValueError(f"vocab_size is {vocab_size}; allowed: {LEAST_VOCABULARY} or more")
    if not texts:
        raise ValueError("a bpe tokenizer is learnt from texts, and there are none")
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|[0-9]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wrapped(tokenizer: Any) -> PreTrainedTokenizerFast:
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
    it, which only tokenizers with a chat template let pass: a chat's prompt is made of them.
    """
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # the tokenizers library raises plain Exception
        piece = _first_unknown(tokenizer, text)
        raise ValueError(
            f"text {text!r} cannot be encoded: {piece!r} is not in the vocabulary"
        ) from error
    if getattr(tokenizer, "chat_template", None) is not None:
        return tuple(ids)
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
