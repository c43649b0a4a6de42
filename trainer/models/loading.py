"""Loads models and tokenizers from a hub id or a local folder, or makes them from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)

from data.tokenizers import build_tokenizer
from rewards.models.calibration import BIAS, TEMPERATURE
from rewards.models.folders import CONVENTION, THINKTREE, load_tokenizer, token_classifiers
from rewards.models.vocabulary import forbid_unknown_tokens


@contextmanager
def whole_models() -> Iterator[None]:
    """In this context every process makes whole models. Outside it, while training arguments with
    ZeRO-3 exist, transformers gives each process a share of the weights. Use the context for models
    that DeepSpeed does not run, and for random models: they then equal those of one process."""
    from transformers.integrations import deepspeed

    reference = deepspeed._hf_deepspeed_config_weak_ref  # transformers has no public getter
    sharded = reference() if reference is not None else None
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if sharded is not None:
            deepspeed.set_hf_deepspeed_config(sharded)


def build_policy(
    model_config: dict[str, Any],
    tokenizer_kind: str,
    max_number: int,
    *,
    vocab_size: int = 2048,
    texts: Sequence[str] = (),
) -> tuple[Any, PreTrainedTokenizerFast]:
    """A randomly initialised causal LM and its tokenizer. `model_config` holds the fields of a
    transformers config, including `model_type`. The other arguments belong to `build_tokenizer`.
    Seed torch before the call. Raises ValueError without `model_type`."""
    if "model_type" not in model_config:
        raise ValueError("model_config needs a model_type, such as 'llama'")
    tokenizer = build_tokenizer(tokenizer_kind, max_number, vocab_size=vocab_size, texts=texts)
    fields = {key: value for key, value in model_config.items() if key != "model_type"}
    config = AutoConfig.for_model(
        model_config["model_type"],
        **fields,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with whole_models():
        return AutoModelForCausalLM.from_config(config), tokenizer


def load_policy(name_or_path: str, dtype: Any = "auto") -> tuple[Any, Any]:
    """A causal LM and its tokenizer from a folder or hub id. The default dtype is the one that the
    model was saved in. The model never samples an id that its tokenizer lacks."""
    model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype)
    tokenizer = load_tokenizer(name_or_path)
    forbid_unknown_tokens(model, tokenizer)
    return model, tokenizer


def policy_shape(name_or_path: str) -> tuple[Any, Any]:
    """A causal LM without weights, for its sizes alone, and its tokenizer."""
    config = AutoConfig.from_pretrained(name_or_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model, load_tokenizer(name_or_path)


def reward_model_from_policy(name_or_path: str) -> Any:
    """A two-class token classifier on the policy's backbone, with a new head and without dropout. A
    reward model keeps its head, but its earlier calibration is dropped."""
    from trl.trainer.utils import disable_dropout_in_model

    model = token_classifiers(AutoConfig.from_pretrained(name_or_path)).from_pretrained(
        name_or_path,
        num_labels=2,
        id2label={0: "incorrect", 1: "correct"},
        label2id={"incorrect": 0, "correct": 1},
        dtype="auto",
    )
    disable_dropout_in_model(model)
    setattr(model.config, CONVENTION, THINKTREE)
    for name in (TEMPERATURE, BIAS):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
