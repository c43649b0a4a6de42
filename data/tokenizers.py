"""Small tokenizers for models trained from scratch.

- "numbers": one token per number, per sign and per line break. A number is the same token at every
  place. The single spaces between the tokens of a line are implied.
- "thoughts": "numbers", with one token for each word of a Countdown thought as well
  (data/tasks/countdown_lines.py).
- "characters": one token per character.
- "bpe": byte pairs (1508.07909, on bytes as in GPT-2) that are learnt from texts. It can encode any
  text. A digit or a line break is never merged with another token.

Except for "bpe", text outside the vocabulary is an error and never an unknown token. All of them
decode a text line by line to the same text as the whole. So the joined texts of the steps
are the text of the solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.tasks.countdown_lines import WORDS

PAD_TOKEN = "<pad>"
END_TOKEN = "<eos>"
SIGN_TOKENS = ("+", "-", "*", "/", "=", "|", "->")
PATTERN = r"\d+|->|[^\s\d]|\n"
THOUGHTS_PATTERN = r"\d+|->|</?think>|[A-Za-z]+|[^\s\d]|\n"
KINDS = ("numbers", "thoughts", "characters", "bpe")
LEAST_VOCABULARY = 2 + 256  # 2 special tokens and 256 bytes


def build_tokenizer(
    kind: str, max_number: int, *, vocab_size: int = 2048, texts: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer with `<pad>` and `<eos>` and no beginning-of-sequence token.

    `kind` is one of `KINDS`. "numbers" has the tokens 0..max_number, and "thoughts" has words as
    well. "characters" has one token per character. "bpe" learns at most `vocab_size` tokens from
    `texts`; the same texts give the same tokenizer.

    Raises ValueError for another kind, for max_number < 1, and for "bpe" without texts or with a
    `vocab_size` below `LEAST_VOCABULARY`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    if max_number < 1:
        raise ValueError(f"max_number is {max_number}; allowed: 1 or more")
    if kind == "bpe":
        return _wrapped(byte_pair_tokenizer(vocab_size, texts, (PAD_TOKEN, END_TOKEN)))
    if kind in ("numbers", "thoughts"):
        words = WORDS if kind == "thoughts" else ()
        texts = ["\n", *map(str, range(max_number + 1)), *SIGN_TOKENS, *words]
        pattern = Regex(THOUGHTS_PATTERN if kind == "thoughts" else PATTERN)
        pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(pattern, "isolated")]
        )
        # Put a space before every token, then remove the spaces at the start and end of a line.
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
    """A byte-level tokenizer of the tokenizers library. The special tokens have the first ids.
    Raises ValueError without texts or with a `vocab_size` below `LEAST_VOCABULARY`."""
    if vocab_size < LEAST_VOCABULARY:
        raise ValueError(f"vocab_size is {vocab_size}; allowed: {LEAST_VOCABULARY} or more")
    if not texts:
        raise ValueError("a bpe tokenizer is learnt from texts, but there are no texts")
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
        # These names are saved with the tokenizer. Without them, older versions of transformers add
        # token_type_ids, which models refuse.
        model_input_names=["input_ids", "attention_mask"],
    )
