"""The model that a stage uses, and the greatest lengths of its prompts and rows, for estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.pipeline.memory import ModelSizes, sizes_of
from trainer.pipeline.published_sizes import config_of

DEFAULT_LENGTH = 64  # tokens of a sequence if neither recipe nor model gives a length
DEFAULT_VOCABULARY = 64  # tokens of a number tokenizer
PROMPT_LENGTH = 256  # tokens of a prompt in words, without the generated tokens


@dataclass(frozen=True, kw_only=True)
class StageModel:
    """The name and the sizes of the model that a stage uses."""

    name: str = ""
    sizes: ModelSizes | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])


def model_of(settings: Mapping[str, Any], inherited: StageModel) -> StageModel:
    """The model that a stage's settings name, else the model `inherited` from the stages it
    reads."""
    if isinstance(config := settings.get("model_config"), Mapping):
        vocabulary = settings.get("vocab_size") if settings.get("tokenizer") == "bpe" else None
        sizes = sizes_of(config, vocabulary or DEFAULT_VOCABULARY)
        return StageModel(name="a model from scratch", sizes=sizes, config=config)
    for key in ("model", "policy"):
        name = settings.get(key)
        if isinstance(name, str) and (config := config_of(name)) is not None:
            return StageModel(name=name, sizes=sizes_of(config), config=config)
    return inherited


def row_length(settings: Mapping[str, Any], model: StageModel) -> int:
    """Most tokens of a training row."""
    said = settings.get("max_length") or settings.get("max_new_tokens")
    return said or (DEFAULT_LENGTH if prompt_length(model) < PROMPT_LENGTH else 1024)


def prompt_length(model: StageModel) -> int:
    """Most tokens of a prompt."""
    sizes = model.sizes
    large = sizes is not None and sizes.vocabulary > 1000
    return PROMPT_LENGTH if large else DEFAULT_LENGTH // 4
