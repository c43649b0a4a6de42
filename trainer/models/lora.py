"""Low-rank adapters (LoRA, 2106.09685) with peft: trains them instead of all weights, and merges an
adapter into its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.models.folders import load_tokenizer
from trainer.models.loading import (
    load_policy,
    reward_model_from_policy,
    save_model,
    whole_models,
)
from trainer.runtime.config import FROM_SCRATCH

POLICY, REWARD_MODEL = "CAUSAL_LM", "TOKEN_CLS"  # peft's names of the two tasks
LOADERS = {POLICY: lambda name: load_policy(name)[0], REWARD_MODEL: reward_model_from_policy}


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (LoRA), which are trained instead of all weights."""

    lora_rank: int = 0
    """Rank of the adapters; 0: all weights are trained."""
    lora_alpha: int | None = None
    """Scale of the adapters; null: twice the rank."""
    lora_dropout: float = 0.0
    """Dropout in the adapters, in [0, 1)."""
    lora_targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Names of the modules that get adapters; or only all-linear."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank is {self.lora_rank}; it must be at least 0")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; allowed: [0, 1)")
        if not self.lora_targets:
            raise ValueError("lora_targets is empty; it must name modules, or be all-linear")


ALL_WEIGHTS = LoraSettings()


def check_lora(settings: LoraSettings, model: str) -> None:
    """Raises ValueError if there is no trained model that an adapter could adapt."""
    if settings.lora_rank and model == FROM_SCRATCH:
        raise ValueError("lora_rank is not 0, but model is from_scratch: there is nothing to adapt")


def adapter_config(settings: LoraSettings, task: str | None = None) -> Any:
    """The settings as peft's LoraConfig. Without a task, peft adds the adapter and does not change
    the methods of the model."""
    from peft import LoraConfig

    every = settings.lora_targets == ["all-linear"]
    return LoraConfig(
        task_type=task,
        exclude_modules=["score", "classifier"] if task == REWARD_MODEL else None,  # trained whole
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if every else settings.lora_targets,
    )


def add_adapter(model: Any, settings: LoraSettings, task: str, seed: int) -> Any:
    """The model with an adapter to train; with `lora_rank` 0 the unchanged model. The adapter's
    first weights depend only on the seed, not on earlier random numbers or on the number of
    processes."""
    if not settings.lora_rank:
        return model
    from peft import get_peft_model

    model.enable_input_require_grads()  # gradient checkpointing needs an input with gradients
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, adapter_config(settings, task))


def merge_adapter(adapter: Path, folder: Path, model: str | None = None) -> None:
    """Merge an adapter folder into its model and write a Hugging Face folder. `model` replaces the
    name of the adapted model in the adapter's config. Raises ValueError for another task."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(adapter))
    if config.task_type not in LOADERS:
        raise ValueError(
            f"{str(adapter)!r} is an adapter for {config.task_type}; allowed: {', '.join(LOADERS)}"
        )
    name = model or config.base_model_name_or_path or ""
    with whole_models():
        adapted = PeftModel.from_pretrained(LOADERS[config.task_type](name), str(adapter))
    own_tokenizer = (adapter / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(adapter) if own_tokenizer else name)
    save_model(adapted.merge_and_unload(), tokenizer, folder)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Which adapter is merged into which model."""

    adapter: str
    """Folder of the adapter, in peft's format."""
    output_dir: str
    """Folder to write; it must not exist."""
    model: str | None = None
    """Folder or hub id of the adapted model; null: the one that the adapter names."""


def run_merge(config: MergeConfig) -> None:
    """Merge an adapter. Raises ValueError for a folder without an adapter, and for an output folder
    that exists."""
    folder = Path(config.output_dir)
    if not (Path(config.adapter) / "adapter_config.json").is_file():
        raise ValueError(f"adapter is {config.adapter!r}: there is no adapter_config.json in it")
    if folder.exists():
        raise ValueError(f"output_dir {config.output_dir!r} exists already")
    temporary = folder.with_name(f".{folder.name}.merging")
    merge_adapter(Path(config.adapter), temporary, config.model)
    temporary.rename(folder)
    print(f"{folder} holds the merged model")


def plain(model: Any) -> Any:
    """The transformers model under adapters."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def plain_weights(model: Any) -> dict[str, Tensor]:
    """A model's weights by their names in the transformers model, with the adapters added. The
    model itself does not change: merging and unmerging would round its weights."""
    from peft.tuners.lora import LoraLayer

    base = plain(model)
    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in base.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module  # every kind of layer has the method, but the base class has not
            delta = layer.get_delta_weight("default")
            merged = weights[f"{name}.weight"].float() + delta.float()
            weights[f"{name}.weight"] = merged.to(weights[f"{name}.weight"].dtype)
    return weights
