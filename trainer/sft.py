"""Supervised fine-tuning rows and trainer (TRL's SFTTrainer), shared by the first policy and by
expert iteration: prompt and completion as token ids, loss on the completion only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.problems import read_demonstrations
from data.tokenizers import encode_strict
from data.types import Demonstration
from search.flops import flop_model
from trainer.batches import sequences_per_update, set_accumulation
from trainer.checkpoints import ZERO_2, CheckpointManifest, optimizer_sharding, resume_from
from trainer.checks import check_policy
from trainer.lora import ALL_WEIGHTS, POLICY, LoraSettings, add_adapter, check_lora, merge_adapter
from trainer.models import FROM_SCRATCH, build_policy, load_policy
from trainer.row_order import taking_longest_first
from trainer.runtime import RuntimeConfig
from trainer.stage import run_stage
from trainer.step_progress import StepProgress


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One training row. `completion_ids` ends with the end token and is never re-encoded."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


def demonstration_rows(demonstrations: Sequence[Demonstration], tokenizer: Any) -> list[TokenRow]:
    return [
        TokenRow(
            prompt_ids=encode_strict(tokenizer, d.problem.prompt),
            completion_ids=(
                *encode_strict(tokenizer, d.solution),
                tokenizer.eos_token_id,
            ),
        )
        for d in demonstrations
    ]


def token_dataset(rows: Sequence[TokenRow]) -> Any:
    """A dataset with `input_ids` and `labels` (-100 on the prompt)."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [[*row.prompt_ids, *row.completion_ids] for row in rows],
            "labels": [[-100] * len(row.prompt_ids) + list(row.completion_ids) for row in rows],
        }
    )


def train_on_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    arguments: Any,
    *,
    longest_first: bool = True,
) -> Any:
    """Train in place with TRL's SFTTrainer; resumes from the newest complete checkpoint.

    `arguments` is an `SFTConfig`. Returns the finished trainer. Raises ValueError without rows and
    for a checkpoint that cannot be gone on from.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    if not rows:
        raise ValueError("there is no row to train on")
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    trainer = (taking_longest_first(SFTTrainer) if longest_first else SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=token_dataset(rows),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest(), StepProgress()],
    )
    trainer.train(resume_from_checkpoint=resume_from(arguments))
    return trainer


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Where the policy comes from. `model` is a hub id, a folder, or `from_scratch`; then
    `model_config` (a transformers config's fields) and `tokenizer` describe it: "numbers" up to
    `max_number`, "characters", or "bpe" with `vocab_size` tokens, learnt from the demonstrations.
    `global_batch_size` sequences make an update whatever the number of processes: gradients are
    accumulated until they are in (null: gradient_accumulation_steps says how often).
    """

    model: str
    data: str  # folder of the data stage, or any with demonstrations.jsonl
    model_config: dict[str, Any] | None = None
    tokenizer: str = "numbers"
    max_number: int = 100
    vocab_size: int = 2048
    global_batch_size: int | None = None
    longest_first: bool = True  # rows, so that memory runs out early or never


def run_sft(
    runtime: RuntimeConfig, config: PolicyConfig, arguments: Any, lora: LoraSettings = ALL_WEIGHTS
) -> None:
    """Train the first policy on demonstrations and save it as a Hugging Face folder; with LoRA the
    adapter beside it. Raises ValueError, before a model is loaded, for parts that do not fit."""
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
        record.training("policy", *training_cost(trainer, rows))


def training_cost(
    trainer: Any, rows: Sequence[TokenRow], sequences_per_row: int = 1
) -> tuple[int, float]:
    """Tokens trained on and FLOPs (backward costs twice the forward). `rows` are all sequences that
    were trained on, of which a row of the trainer's data set holds `sequences_per_row`."""
    mean_length = sum(len(r.prompt_ids) + len(r.completion_ids) for r in rows) / len(rows)
    sequences = trainer.state.global_step * sequences_per_update(trainer.args) * sequences_per_row
    flops = 3 * sequences * flop_model(trainer.model).forward(0, round(mean_length))
    return round(sequences * mean_length), flops


def last_loss(trainer: Any) -> float | None:
    """The mean loss of the last steps that were logged. (The Trainer's own mean over all steps is,
    in a run that was resumed, one over those since then.)"""
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return logged[-1] if logged else None


def save_trained(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """The final weights as a Hugging Face folder, gathered from all processes, and the history of
    the training. A LoRA adapter goes to `adapter`, a peft folder, merged with its model into
    `folder`. To be called on every process."""
    from peft import PeftModel

    adapter = folder / "adapter" if isinstance(trainer.model, PeftModel) else None
    if optimizer_sharding() == ZERO_2:  # the Trainer would write tied weights twice
        if trainer.is_world_process_zero():
            trainer.model.save_pretrained(str(adapter or folder))
    else:
        trainer.save_model(str(adapter or folder))
    if trainer.is_world_process_zero():
        if adapter is not None:
            tokenizer.save_pretrained(adapter)
            merge_adapter(adapter, folder)
        tokenizer.save_pretrained(folder)
        trainer.save_state()
