"""The SFT stage trains the first policy on demonstrations with TRL's SFTTrainer. Prompt and
completion are token ids, and the loss covers the completion only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.behaviours import behaviour_rates
from data.problems import read_demonstrations
from trainer.models.compatibility import check_policy
from trainer.models.loading import build_policy, load_policy
from trainer.models.lora import (
    ALL_WEIGHTS,
    POLICY,
    LoraSettings,
    add_adapter,
    check_lora,
)
from trainer.runtime.config import FROM_SCRATCH, RuntimeConfig
from trainer.runtime.stage import run_stage
from trainer.training.batch_size import set_accumulation
from trainer.training.token_rows import demonstration_rows, train_on_rows
from trainer.training.trained import last_loss, save_trained, training_cost


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The model that the first policy starts from, and its training data."""

    model: str
    """Folder or hub id of the model, or from_scratch."""
    data: str
    """Folder of the data stage, or another folder with demonstrations.jsonl."""
    model_config: dict[str, Any] | None = None
    """Fields of a transformers config, for a model from scratch."""
    tokenizer: str = "numbers"
    """Tokenizer of a model from scratch: numbers, thoughts, characters or bpe (of the data)."""
    max_number: int = 100
    """Largest number that is a single token, where tokenizer is numbers or thoughts."""
    vocab_size: int = 2048
    """Tokens of the vocabulary, where tokenizer is bpe."""
    global_batch_size: int | None = None
    """Sequences per update, over all processes; null: gradient_accumulation_steps decides."""
    longest_first: bool = True
    """Put the longest rows first, so that memory runs out at the start or never."""


def run_sft(
    runtime: RuntimeConfig, config: PolicyConfig, arguments: Any, lora: LoraSettings = ALL_WEIGHTS
) -> None:
    """Train the first policy on demonstrations and save it as a Hugging Face folder. With LoRA the
    folder also holds the adapter. Raises ValueError, before a model is loaded, for parts that do
    not fit together."""
    if config.model == FROM_SCRATCH and not config.model_config:
        raise ValueError("model is from_scratch: model_config must describe the model")
    set_accumulation(arguments, config.global_batch_size)
    check_lora(lora, config.model)
    inputs = {"data": config.data, "model": config.model}

    def check() -> None:
        if config.model != FROM_SCRATCH:
            check_policy(config.model)

    with run_stage("sft", runtime, [config, lora, arguments], inputs, check) as record:
        demonstrations = read_demonstrations(Path(config.data) / "demonstrations.jsonl")
        if config.model == FROM_SCRATCH:
            model, tokenizer = build_policy(
                config.model_config or {},
                config.tokenizer,
                config.max_number,
                vocab_size=config.vocab_size,
                texts=[d.problem.prompt + d.solution for d in demonstrations],
            )
        else:
            model, tokenizer = load_policy(config.model)
            model = add_adapter(model, lora, POLICY, runtime.seed)
        rows = demonstration_rows(demonstrations, tokenizer)
        trainer = train_on_rows(
            model, tokenizer, rows, arguments, longest_first=config.longest_first
        )
        save_trained(trainer, tokenizer, Path(runtime.output_dir))
        record.metrics |= {"rows": len(rows), "loss": last_loss(trainer)}
        rates = behaviour_rates((d.problem, d.solution) for d in demonstrations)
        if rates.thoughts:
            record.metrics |= rates.metrics()
        record.training("policy", *training_cost(trainer, rows))
