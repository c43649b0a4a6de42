"""The model that a stage uses, and the greatest lengths of its prompts and rows, for estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.pipeline.memory import ModelSizes, missing_sizes, sizes_of
from trainer.pipeline.published_sizes import config_of
from trainer.pipeline.recipe import PLACEHOLDER, Stage
from trainer.runtime.config import FROM_SCRATCH

# Keys that name the model that a stage starts from; the policies of a gate have equal sizes.
MODEL_KEYS = ("model", "policy", "candidate", "incumbent")
DEFAULT_LENGTH = 64  # tokens of a sequence if neither recipe nor model gives a length
DEFAULT_VOCABULARY = 64  # tokens of a number tokenizer
PROMPT_LENGTH = 256  # tokens of a prompt in words, without the generated tokens


@dataclass(frozen=True, kw_only=True)
class StageModel:
    """The name and the sizes of the model that a stage uses. If the sizes are not known, `unknown`
    says why."""

    name: str = ""
    sizes: ModelSizes | None = None
    unknown: str = "no model that the stage reads has known sizes"
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])


def model_of(settings: Mapping[str, Any], inherited: StageModel) -> StageModel:
    """The model that a stage's settings name, else the model `inherited` from an earlier stage."""
    if isinstance(config := settings.get("model_config"), Mapping):
        vocabulary = settings.get("vocab_size") if settings.get("tokenizer") == "bpe" else None
        sizes = sizes_of(config, vocabulary or DEFAULT_VOCABULARY)
        unknown = f"model_config has no {_listed(config)} (--set replaces the whole mapping)"
        return StageModel(name="a model from scratch", sizes=sizes, unknown=unknown, config=config)
    for key in MODEL_KEYS:
        name = settings.get(key)
        if not isinstance(name, str) or PLACEHOLDER.search(name):
            continue
        if (config := config_of(name)) is None:
            return StageModel(name=name, unknown=f"no folder {name!r}, and no known id of a model")
        unknown = f"the config of {name} has no {_listed(config)}"
        return StageModel(name=name, sizes=sizes_of(config), unknown=unknown, config=config)
    return inherited


def defaults_used(settings: Mapping[str, Any]) -> str | None:
    """The sizes that a `model_config` leaves to transformers, in words; None if it names all, or if
    the stage builds no model of a known type."""
    from transformers import CONFIG_MAPPING

    config = settings.get("model_config")
    if settings.get("model") != FROM_SCRATCH or not isinstance(config, Mapping):
        return None
    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    kind = CONFIG_MAPPING[config["model_type"]]
    left = [name for name in missing_sizes(config) if kind.attribute_map.get(name) not in config]
    sizes = ", ".join(f"{name} {getattr(kind(), name, 'unknown')}" for name in left)
    return (
        f"model_config leaves sizes to the defaults of {kind.__name__}: {sizes}" if left else None
    )


def _listed(config: Mapping[str, Any]) -> str:
    return ", ".join(missing_sizes(config))


def inherited_model(stage: Stage, models: Mapping[str, StageModel]) -> StageModel:
    """The model of the stage that a key of MODEL_KEYS names, else of the first stage that this
    stage reads and whose sizes are known."""
    named = [n for key in MODEL_KEYS for n in PLACEHOLDER.findall(str(stage.args.get(key)))]
    sources = named[:1] or [name for name in stage.inputs if models[name].sizes]
    if not sources:
        return StageModel()
    source = f"the model of stage {sources[0]}"
    unknown = f"the sizes of {source} are not known"
    return replace(models[sources[0]], name=source, unknown=unknown)


def row_length(settings: Mapping[str, Any], model: StageModel) -> int:
    """Most tokens of a training row."""
    said = settings.get("max_length") or settings.get("max_new_tokens")
    return said or (DEFAULT_LENGTH if prompt_length(model) < PROMPT_LENGTH else 1024)


def prompt_length(model: StageModel) -> int:
    """Most tokens of a prompt."""
    sizes = model.sizes
    large = sizes is not None and sizes.vocabulary > 1000
    return PROMPT_LENGTH if large else DEFAULT_LENGTH // 4
