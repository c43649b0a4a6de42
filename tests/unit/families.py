"""Tiny folders that are laid out as the published ones of each family: the family's own class of
tokenizer, learnt here from a few sentences, its special tokens, end tokens and chat template, and a
model of its architecture with random weights."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    GemmaTokenizer,
    GenerationConfig,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

LINES = (
    "Tom has 12 apples and buys 30 more.",
    "def add(a, b):\n    return a + b\n",
    "    for i in range(10):\n        total += i",
    "So the answer is \\boxed{42}.\n\n",
    "We know that x = 3, so 2x + 1 = 7.\n",
    "Héllo wörld, 你好 world 🙂!",
    "the sum of the numbers is 19.\n#### 19\n",
    "\tTab, don't  double   space",
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512,
}  # fmt: skip
CHAT_ML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == "
    "'assistant' else 'user') + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA_3_CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] "
    "+ ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """`tokenizer` makes the family's tokenizer. `config` holds the fields of its model, and
    `padding` the number of ids that the model has more. The model's end tokens are `ends`."""

    tokenizer: Callable[[], Any]
    config: dict[str, Any]
    ends: tuple[str, ...]
    padding: int = 0


def _learnt(pre_tokenizer: Any, alphabet: list[str]) -> list[tuple[str, str]]:
    """The merges of byte pairs that are learnt from LINES."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer: Any = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def _vocabulary(first: list[str], merges: list[tuple[str, str]]) -> dict[str, int]:
    tokens = dict.fromkeys([*first, *(left + right for left, right in merges)])
    return {token: i for i, token in enumerate(tokens)}


@cache
def _byte_level(pattern: str | None) -> tuple[list[str], list[tuple[str, str]]]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    split: list[Any] = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    return alphabet, _learnt(pre_tokenizers.Sequence([*split, byte_level]), alphabet)


@cache
def _sentence_pieces() -> tuple[list[str], list[tuple[str, str]]]:
    """The bytes and characters of a SentencePiece model with byte fallback. A line break is a byte,
    and so is a character that is seldom."""
    merges = _learnt(pre_tokenizers.Metaspace(prepend_scheme="never"), [])
    characters = sorted({c for line in LINES for c in line if "!" <= c <= "~"})
    seen = {"▁", *characters}
    kept: list[tuple[str, str]] = []
    for a, b in merges:
        if {a, b} <= seen:
            kept.append((a, b))
            seen.add(a + b)
    return [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *characters], kept


def _llama_2(*, legacy: bool = True, chat: str | None = None, **options: Any) -> Any:
    pieces, merges = _sentence_pieces()
    vocabulary = _vocabulary(["<unk>", "<s>", "</s>", *pieces], merges)
    tokenizer: Any = LlamaTokenizer(
        vocab=vocabulary, merges=merges, legacy=legacy, add_bos_token=True, **options
    )
    tokenizer.chat_template = chat
    return tokenizer


def _gemma_3() -> Any:
    pieces, merges = _sentence_pieces()
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    vocabulary = _vocabulary([*first, "\n", "\n\n", *pieces], merges)
    tokenizer: Any = GemmaTokenizer(
        vocab=vocabulary, merges=[("\n", "\n"), *merges], add_bos_token=True
    )
    tokenizer.add_tokens([AddedToken(t, special=True) for t in first[5:]])
    tokenizer.add_tokens([AddedToken("<image_soft_token>", special=True)])  # the model has no such
    tokenizer.chat_template = GEMMA
    return tokenizer


def _llama_3() -> Any:
    alphabet, merges = _byte_level(LLAMA_3)
    backend: Any = Tokenizer(
        models.BPE(vocab=_vocabulary(alphabet, merges), merges=merges, ignore_merges=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = (
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eom_id|>", "<|eot_id|>",
    )  # fmt: skip
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    begin = "<|begin_of_text|>"
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=True, chat_template=LLAMA_3_CHAT,
    )  # fmt: skip


def _qwen(*thinking: str) -> Any:
    alphabet, merges = _byte_level(LLAMA_3)
    tokenizer: Any = Qwen2Tokenizer(
        vocab=_vocabulary([*alphabet, "<|endoftext|>"], merges), merges=merges,
        eos_token="<|im_end|>", pad_token="<|endoftext|>",
    )  # fmt: skip
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in thinking])
    tokenizer.chat_template = CHAT_ML
    return tokenizer


def _gpt_2(special: list[str], **options: Any) -> Any:
    alphabet, merges = _byte_level(None)
    tokenizer: Any = GPT2Tokenizer(
        vocab=_vocabulary([*special, *alphabet], merges), merges=merges, **options
    )
    return tokenizer


def _smollm() -> Any:
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _gpt_2(special, unk_token="<|endoftext|>", **names)
    tokenizer.chat_template = CHAT_ML
    return tokenizer


WINDOW = {"sliding_window": 8}
FAMILIES: dict[str, Family] = {
    "llama_2": Family(tokenizer=_llama_2, config={"model_type": "llama"}, ends=("</s>",)),
    "llama_2_with_end": Family(
        tokenizer=lambda: _llama_2(add_eos_token=True),
        config={"model_type": "llama"}, ends=("</s>",),
    ),
    "mistral": Family(
        tokenizer=lambda: _llama_2(legacy=False, chat=MISTRAL_CHAT),
        config={"model_type": "mistral", **WINDOW}, ends=("</s>",),
    ),
    "llama_3": Family(
        tokenizer=_llama_3, config={"model_type": "llama"},
        ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "qwen_2.5": Family(
        tokenizer=_qwen, config={"model_type": "qwen2"}, ends=("<|im_end|>", "<|endoftext|>"),
        padding=71,
    ),
    "qwen_3": Family(
        tokenizer=lambda: _qwen("<think>", "</think>"), config={"model_type": "qwen3"},
        ends=("<|im_end|>", "<|endoftext|>"), padding=93,
    ),
    "gemma_3": Family(
        tokenizer=_gemma_3,
        config={
            "model_type": "gemma3_text", **WINDOW, "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        ends=("<eos>", "<end_of_turn>"), padding=-1,
    ),
    "smollm_2": Family(
        tokenizer=_smollm, config={"model_type": "llama", "tie_word_embeddings": True},
        ends=("<|im_end|>",),
    ),
    "phi": Family(
        tokenizer=lambda: _gpt_2(["<|endoftext|>"]), config={"model_type": "phi"},
        ends=("<|endoftext|>",), padding=43,
    ),
}  # fmt: skip


def family_folder(name: str, folder: Path) -> Path:
    """Save the family's tokenizer and a random model as one folder."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    fields = {key: value for key, value in family.config.items() if key != "model_type"}
    ends = [tokenizer.convert_tokens_to_ids(end) for end in family.ends]
    config = AutoConfig.for_model(
        family.config["model_type"], **SIZES, **fields,
        vocab_size=len(tokenizer) + family.padding, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0], pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(5)
    model: Any = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def generated_texts(count: int, seed: int = 7) -> list[str]:
    """Texts of words, code, numbers and other scripts, in lines."""
    chance = random.Random(seed)
    spaces = ("\n", "\n\n", " ", "  ", "\n    ", "\t", "\n\n\n")
    parts = [*LINES, *spaces, "7", "你", "🙂", "x+1", ".", "é"]
    return ["".join(chance.choices(parts, k=chance.randint(1, 8))) for _ in range(count)]
