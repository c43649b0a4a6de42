"""Reward models as Hugging Face folders: the keys of config.json that say how one is asked."""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from typing import Any

from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
)

CONVENTION = "thinktree_convention"  # how a reward model is asked, as its config.json says
TARGETS = "thinktree_targets"  # what ours was trained on, see TARGETS_OF
WHOLE_PROMPT = "thinktree_whole_prompt"  # asked about the policy's prompt, not the bare question
THINKTREE = "thinktree"


def load_tokenizer(name_or_path: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_reward_model(name_or_path: str) -> Any:
    return AutoModelForTokenClassification.from_pretrained(name_or_path, dtype="auto")
