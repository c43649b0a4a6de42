"""The end of every training: its cost, its last loss, and the saved weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.flops import flop_model
from data.types import TokenRow
from trainer.models.lora import (
    merge_adapter,
)
from trainer.training.batch_size import sequences_per_update
from trainer.training.checkpoints import ZERO_2, optimizer_sharding


def training_cost(
    trainer: Any, rows: Sequence[TokenRow], sequences_per_row: int = 1
) -> tuple[int, float]:
    """The tokens and the FLOPs of a training (a backward pass costs two forward passes). `rows` are
    all training sequences; a row of the trainer's data set holds `sequences_per_row` of them."""
    mean_length = sum(len(r.prompt_ids) + len(r.completion_ids) for r in rows) / len(rows)
    sequences = trainer.state.global_step * sequences_per_update(trainer.args) * sequences_per_row
    flops = 3 * sequences * flop_model(trainer.model).forward(0, round(mean_length))
    return round(sequences * mean_length), flops


def last_loss(trainer: Any) -> float | None:
    """The mean loss of the last logged steps. (The Trainer also gives a mean over all steps, but in
    a resumed run that mean covers only the steps since the restart.)"""
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return logged[-1] if logged else None


def save_trained(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Save the final weights, gathered from all processes, as a Hugging Face folder, and the
    history of the training. A LoRA adapter is saved to `adapter`, a peft folder, and the merged
    model to `folder`. Every process must call this function."""
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
