"""Reward models as Hugging Face folders: loading, and the keys in config.json that describe their
input."""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import importlib
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GenerationConfig,
)

from data.token_text import END_TOKENS

CONVENTION = "thinktree_convention"  # the convention of the model's input, one of CONVENTIONS
TARGETS = "thinktree_targets"  # the targets that a model of this project was trained on
WHOLE_PROMPT = "thinktree_whole_prompt"  # true: the model reads the policy's whole prompt
THINKTREE = "thinktree"


def load_tokenizer(name_or_path: str) -> Any:
    """Load a tokenizer, and the end tokens of its model (`data.token_text.end_token_ids`).

    A chat model may end a turn with another of its end tokens than the tokenizer's (Gemma has
    `<eos>` and `<end_of_turn>`). That one becomes the tokenizer's end token, as it is the one to
    train with. The padding token is the end token when the tokenizer has none.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    ends = model_end_tokens(name_or_path)
    setattr(tokenizer, END_TOKENS, ends)
    turn_end = _turn_end(tokenizer, ends) if len(ends) > 1 else None
    if turn_end is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(turn_end)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model_end_tokens(name_or_path: str) -> frozenset[int]:
    """The ids of the end tokens in a model's configuration and in its generation's configuration;
    empty if they name none."""
    found: set[int] = set()
    for read in (AutoConfig.from_pretrained, GenerationConfig.from_pretrained):
        try:
            config: Any = read(name_or_path)
        except (OSError, ValueError):  # a folder that has only a tokenizer
            continue
        if hasattr(config, "get_text_config"):
            config = config.get_text_config()
        ids = getattr(config, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return frozenset(found)


def _turn_end(tokenizer: Any, ends: frozenset[int]) -> int | None:
    """The first of `ends` behind an answer in the chat template; None without one."""
    if tokenizer.chat_template is None:
        return None
    said = "answer 7"
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": said}]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # the template is checked where it is used
        return None
    behind = tokenizer.encode(text[text.rfind(said) + len(said) :], add_special_tokens=False)
    return next((token for token in behind if token in ends), None)


def load_reward_model(name_or_path: str) -> Any:
    config = AutoConfig.from_pretrained(name_or_path)
    return token_classifiers(config).from_pretrained(name_or_path, dtype="auto")


def token_classifiers(config: Any) -> Any:
    """transformers' class of token classifiers, which knows the architecture of `config`."""
    if config.model_type == "gemma3_text":
        importlib.import_module("rewards.models.gemma_3")  # a second: only for this family
    return AutoModelForTokenClassification
