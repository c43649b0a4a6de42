"""Reward models as Hugging Face folders: loading, and the keys in config.json that describe their
input."""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from typing import Any

from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
)

CONVENTION = "thinktree_convention"  # the convention of the model's input, one of CONVENTIONS
TARGETS = "thinktree_targets"  # the targets that a model of this project was trained on
WHOLE_PROMPT = "thinktree_whole_prompt"  # true: the model reads the policy's whole prompt
THINKTREE = "thinktree"


def load_tokenizer(name_or_path: str) -> Any:
    """Load a tokenizer. Its padding token is the end token when it has none."""
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_reward_model(name_or_path: str) -> Any:
    return AutoModelForTokenClassification.from_pretrained(name_or_path, dtype="auto")
