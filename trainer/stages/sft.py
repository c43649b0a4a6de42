"""The SFT stage trains the first policy on demonstrations with TRL's SFTTrainer. Prompt and
completion are token ids, and the loss covers the completion only."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from data.behaviours import behaviour_rates
from data.held_out import check_rows_held_out
from data.problems import read_demonstrations
from data.settings import suggestion
from data.types import Demonstration, TokenRow
from rewards.verifiers.by_name import VERIFIERS
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.measures.saturation import still_rising
from trainer.models.compatibility import check_policy
from trainer.models.loading import build_policy, load_policy
from trainer.models.lora import (
    ALL_WEIGHTS,
    POLICY,
    LoraSettings,
    add_adapter,
    check_lora,
)
from trainer.rollouts.early_stopping import EarlyStoppingConfig, KeepBest
from trainer.rollouts.held_out import HeldOut
from trainer.runtime.config import FROM_SCRATCH, RuntimeConfig
from trainer.runtime.further_updates import updates_of
from trainer.runtime.stage import StageRecord, numbered_inputs, run_stage
from trainer.training.batch_size import set_accumulation
from trainer.training.row_order import RowOrder
from trainer.training.token_rows import demonstration_rows, train_on_rows
from trainer.training.trained import (
    last_loss,
    save_trained,
    save_weights,
    training_cost,
)

NO_EVALUATION = EarlyStoppingConfig()


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
    sorted_updates: bool = False
    """Sort the rows of an update by length, so that its micro-batches have little padding."""
    updates_like: list[str] = field(default_factory=list[str])
    """Folders that led to a learner, itself last: as many updates as theirs, as its control."""

    def __post_init__(self) -> None:
        if self.model != FROM_SCRATCH:
            return
        if not self.model_config:
            raise ValueError("model is from_scratch: model_config must describe the model")
        kind = self.model_config.get("model_type")
        if kind is None:
            raise ValueError(
                "model_config needs a model_type, such as 'llama'; a mapping is given as a whole, "
                f"and this one has only {', '.join(self.model_config)}"
            )
        if kind not in CONFIG_MAPPING:
            hint = suggestion(str(kind), CONFIG_MAPPING)
            raise ValueError(f"model_type of model_config is {kind!r}; {hint}")


def run_sft(
    runtime: RuntimeConfig,
    config: PolicyConfig,
    arguments: Any,
    lora: LoraSettings = ALL_WEIGHTS,
    stopping: EarlyStoppingConfig = NO_EVALUATION,
) -> None:
    """Train the first policy on demonstrations and save it as a Hugging Face folder. With LoRA the
    folder also holds the adapter. With evaluations, the folder holds the best weights. Raises
    ValueError, before a model is loaded, for parts that do not fit together."""
    set_accumulation(arguments, config.global_batch_size)
    check_lora(lora, config.model)
    inputs: dict[str, str | None] = {"data": config.data, "model": config.model}
    if config.updates_like:
        arguments.max_steps = updates_of(config.updates_like)
        inputs |= numbered_inputs("updates_like", config.updates_like)

    if stopping.evaluation_problems:
        stopping.resolved(config.data)

    def check() -> None:
        if config.model != FROM_SCRATCH:
            check_policy(config.model)

    with run_stage("sft", runtime, [config, lora, arguments, stopping], inputs, check) as record:
        demonstrations = read_demonstrations(Path(config.data) / "demonstrations.jsonl")
        model, tokenizer = _starting_model(config, demonstrations, lora, runtime.seed)
        rows = demonstration_rows(demonstrations, tokenizer)
        watched: list[KeepBest] = []

        def watching(trainer: Any) -> list[Any]:
            if stopping.evaluation_problems:
                watched.append(_keep_best(runtime, config, stopping, trainer, tokenizer, rows))
            return [callback for keep in watched for callback in (keep.held_out, keep)]

        trainer = train_on_rows(
            model,
            tokenizer,
            rows,
            arguments,
            order=RowOrder(
                longest_first=config.longest_first, sorted_updates=config.sorted_updates
            ),
            watching=watching,
        )
        record.metrics |= {"rows": len(rows), "loss": last_loss(trainer)}
        rates = behaviour_rates((d.problem, d.solution) for d in demonstrations)
        if rates.thoughts:
            record.metrics |= rates.metrics()
        record.training("policy", *training_cost(trainer, rows))
        if watched:
            _save_best(watched[0], trainer, record)
        else:
            save_trained(trainer, tokenizer, Path(runtime.output_dir))


def _starting_model(
    config: PolicyConfig, demonstrations: Sequence[Demonstration], lora: LoraSettings, seed: int
) -> tuple[Any, Any]:
    """The model, with an adapter where it gets one, and its tokenizer."""
    if config.model == FROM_SCRATCH:
        return build_policy(
            config.model_config or {},
            config.tokenizer,
            config.max_number,
            vocab_size=config.vocab_size,
            texts=[d.problem.prompt + d.solution for d in demonstrations],
        )
    model, tokenizer = load_policy(config.model)
    return add_adapter(model, lora, POLICY, seed), tokenizer


def _keep_best(
    runtime: RuntimeConfig,
    config: PolicyConfig,
    stopping: EarlyStoppingConfig,
    trainer: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
) -> KeepBest:
    """The evaluations of the training, and what they keep of it. Raises ValueError for a validation
    problem that is also trained on."""
    held_out, verifier = stopping.resolved(config.data)
    engine = TransformersEngine(trainer.model, tokenizer, EngineConfig(seed=runtime.seed))
    folder = Path(runtime.output_dir)
    evaluations = HeldOut(
        held_out,
        engine,
        VERIFIERS[verifier](),
        data=config.data,
        folder=folder,
        sampled=lambda: 0,  # nothing is learnt from samples
    )
    prompts = [row.prompt_ids for row in rows]
    check_rows_held_out(evaluations.problems, prompts, engine.encode_prompt)
    return KeepBest(
        evaluations,
        patience=stopping.patience,
        target=stopping.target_accuracy,
        folder=folder,
        save=lambda path: save_weights(trainer, tokenizer, path),
    )


def _save_best(keep: KeepBest, trainer: Any, record: StageRecord) -> None:
    """Save the best weights and the training's history, and record the evaluations."""
    rows, best = keep.held_out.rows(), keep.best()
    if trainer.is_world_process_zero():
        shutil.copytree(keep.best_folder(), keep.folder, dirs_exist_ok=True)
        trainer.save_state()
    accuracies = [row["accuracy"] for row in rows]
    rising = still_rising([row["cycle"] for row in rows], accuracies, best["problems"])
    record.metrics |= {
        "updates": trainer.state.global_step,
        "best_update": best["cycle"],
        "validation_accuracy": best["accuracy"],
        "held_out_problems": best["problems"],
        "stopped_early": keep.stopped or keep.reached,
        "still_rising": rising and not keep.stopped,
    }
    record.search(keep.held_out.usage())
