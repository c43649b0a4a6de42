"""Tokenizers built from scratch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data.tasks.countdown import make_problem
from data.token_text import TokenText
from data.tokenizers import build_tokenizer

TEXT = make_problem((3, 4, 7, 12), 24).prompt + "7 - 4 = 3 | 3 12 3\n12 / 3 = 4 | 3 4"
TOKENIZERS: dict[str, Any] = {kind: build_tokenizer(kind, 40) for kind in ("numbers", "characters")}


def test_numbers_by_hand() -> None:
    tokenizer = TOKENIZERS["numbers"]
    ids = TokenText(tokenizer).encode("3 12 -> 24\n7 | 0")
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == [
        "3", "12", "->", "24", "\n", "7", "|", "0"
    ]  # fmt: skip
    assert len(tokenizer) == 2 + 1 + 41 + 7


def test_characters_by_hand() -> None:
    tokenizer = TOKENIZERS["characters"]
    ids = TokenText(tokenizer).encode("12 ->\n")
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == ["1", "2", " ", "-", ">", "\n"]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_tokens(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<pad>", "<eos>")
    assert tokenizer.bos_token is None
    assert tokenizer.unk_token is None
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.chat_template is None
    assert set(tokenizer(TEXT)) == {"input_ids", "attention_mask"}
    assert tokenizer(TEXT)["input_ids"] == list(TokenText(tokenizer).encode(TEXT))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]
    tokenizer.save_pretrained(tmp_path)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["model_input_names"] == ["input_ids", "attention_mask"]
    ids = TokenText(loaded).encode(TEXT)
    assert ids == TokenText(tokenizer).encode(TEXT)
    assert loaded.decode(ids) == TEXT
    assert loaded.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    assert not loaded.clean_up_tokenization_spaces
    with pytest.raises(ValueError, match="not in the vocabulary"):
        TokenText(loaded).encode("x")


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_steps_decode_as_the_whole_does(kind: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[kind]
    newline = tokenizer.convert_tokens_to_ids("\n")
    others = st.integers(newline + 1, len(tokenizer) - 1)
    lines = data.draw(st.lists(st.lists(others, max_size=6), max_size=5))
    steps = [[*line, newline] for line in lines]
    whole = tokenizer.decode([token for step in steps for token in step])
    assert whole == "".join(tokenizer.decode(step) for step in steps)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    numbers=st.lists(st.integers(0, 40), min_size=1),
    target=st.integers(0, 40),
    operator=st.sampled_from("+-*/"),
)
@settings(max_examples=50, deadline=None)
def test_encode_then_decode(kind: str, numbers: list[int], target: int, operator: str) -> None:
    tokenizer = TOKENIZERS[kind]
    joined = " ".join(map(str, numbers))
    text = f"{joined} -> {target}\n{target} {operator} 2 = 3 | {joined}"
    assert tokenizer.decode(TokenText(tokenizer).encode(text)) == text


@pytest.mark.parametrize(
    ("kind", "text", "piece"),
    [
        ("numbers", "3 41", "41"),
        ("numbers", "3 05", "05"),
        ("numbers", "3\t5", "\t"),
        ("numbers", "3 x", "x"),
        ("numbers", "\u0663", "\u0663"),
        ("characters", "3 x", "x"),
        ("characters", "3\t5", "\t"),
    ],
)
def test_unknown_text_is_named(kind: str, text: str, piece: str) -> None:
    with pytest.raises(ValueError) as error:
        TokenText(TOKENIZERS[kind]).encode(text)
    assert f"{piece!r} is not in the vocabulary" in str(error.value)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_tokens_spelt_out_are_rejected(kind: str) -> None:
    with pytest.raises(ValueError, match="special token '<eos>'"):
        TokenText(TOKENIZERS[kind]).encode("3<eos>")


def test_bad_arguments() -> None:
    with pytest.raises(
        ValueError, match="kind is 'words'; allowed: numbers, thoughts, characters, bpe"
    ):
        build_tokenizer("words", 40)
    with pytest.raises(ValueError, match="max_number is 0"):
        build_tokenizer("numbers", 0)


LEARNT_FROM = ["Tom has 12 apples.\nHe eats 2 of them.\n#### 10", "Tom has 15 pears."] * 20


def test_byte_pairs_by_hand() -> None:
    tokenizer: Any = build_tokenizer("bpe", 1, vocab_size=300, texts=LEARNT_FROM)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    ids = TokenText(tokenizer).encode("Tom has 12 apples.\n#### 3")
    texts = [tokenizer.decode([i]) for i in ids]
    assert texts[:2] == ["Tom", " has"]
    assert [text for text in texts if text.strip().isdigit()] == ["1", "2", "3"]
    assert texts.count("\n") == 1
    assert len(tokenizer) <= 300
    again: Any = build_tokenizer("bpe", 1, vocab_size=300, texts=LEARNT_FROM)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_byte_pairs_need_texts_and_room() -> None:
    with pytest.raises(ValueError, match="learnt from texts"):
        build_tokenizer("bpe", 1)
    with pytest.raises(ValueError, match="vocab_size is 257; allowed: 258 or more"):
        build_tokenizer("bpe", 1, vocab_size=257, texts=LEARNT_FROM)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_byte_pairs_encode_any_text(text: str) -> None:
    tokenizer = BYTE_PAIRS
    text = text.replace("<pad>", "").replace("<eos>", "")
    ids = TokenText(tokenizer).encode(text)
    assert tokenizer.decode(ids) == text
    steps = [line for line in text.splitlines(keepends=True) if line]
    assert "".join(tokenizer.decode(TokenText(tokenizer).encode(step)) for step in steps) == text


BYTE_PAIRS: Any = build_tokenizer("bpe", 1, vocab_size=300, texts=LEARNT_FROM)
