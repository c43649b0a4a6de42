"""Facts about published models, known without a download. A dry run needs the sizes for its
estimates. A smoke run gives its tiny models the chat templates and special tokens.

Sizes come from each model's config.json. A model that is not listed can be given as a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """`config` holds the fields of a transformers config. `chat_template` is the template itself,
    or the name of one in TRL. `special_tokens` belong to the tokenizer and include `end_token` and
    `pad_token`."""

    config: Mapping[str, Any]
    chat_template: str
    special_tokens: tuple[str, ...]
    end_token: str
    pad_token: str


QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def _qwen2_5(
    hidden: int, intermediate: int, layers: int, heads: int, shared: int, *, chat: bool
) -> KnownModel:
    """Facts about a Qwen2.5 model. Small models tie their embeddings and have 151,936 tokens; the
    others have 152,064. The chat models end an answer with <|im_end|> and use TRL's template. The
    template of the base models differs from it only in the text of the system turn."""
    small = hidden <= 2048
    return KnownModel(
        config={
            "model_type": "qwen2",
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": shared,
            "tie_word_embeddings": small,
            "vocab_size": 151_936 if small else 152_064,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
        chat_template="qwen2_5",
        special_tokens=QWEN_SPECIAL_TOKENS,
        end_token="<|im_end|>" if chat else "<|endoftext|>",
        pad_token="<|endoftext|>",
    )


_QWEN_SIZES = {
    "0.5B": (896, 4864, 24, 14, 2),
    "1.5B": (1536, 8960, 28, 12, 2),
    "3B": (2048, 11_008, 36, 16, 2),
    "7B": (3584, 18_944, 28, 28, 4),
    "14B": (5120, 13_824, 48, 40, 8),
    "32B": (5120, 27_648, 64, 40, 8),
    "72B": (8192, 29_568, 80, 64, 8),
}
SMOLLM2_135M_INSTRUCT = KnownModel(
    config={
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
        "vocab_size": 49_152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
    },
    chat_template=(
        "{% for message in messages %}"
        "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
        " + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    end_token="<|im_end|>",
    pad_token="<|im_end|>",
)
KNOWN_MODELS: dict[str, KnownModel] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2_135M_INSTRUCT,
    "outputs/smollm2-135m-instruct": SMOLLM2_135M_INSTRUCT,  # the folder of `make real-model`
} | {
    f"Qwen/Qwen2.5-{size}{suffix}": _qwen2_5(*sizes, chat=bool(suffix))
    for size, sizes in _QWEN_SIZES.items()
    for suffix in ("", "-Instruct")
}


def config_of(name_or_path: str) -> Mapping[str, Any] | None:
    """The config of a model, from its folder or from the known ids; None if there is neither."""
    path = Path(name_or_path) / "config.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    known = KNOWN_MODELS.get(name_or_path)
    return known.config if known else None
