"""What every trained folder ends with: its cost, its last loss, its saved weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.flops import flop_model
from data.types import TokenRow
from trainer.models.lora import (
    merge_adapter,
)
from trainer.training.checkpoints import ZERO_2, optimizer_sharding


def training_cost(trainer: Any, rows: Sequence[TokenRow]) -> tuple[int, float]:
    """Tokens trained on, and FLOPs (backward costs twice the forward).

    The tokens are those of the batches that the trainer took, without padding: the last batch of
    an epoch can be short. `rows` are the sequences of the data set, each once. The FLOPs are
    theirs, times the tokens trained on per token of theirs, so they are exact for whole epochs.
    """
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    model = flop_model(trainer.model)
    tokens = int(trainer.state.num_input_tokens_seen)
    epoch = sum(model.forward(0, length) for length in lengths)
    return tokens, 3 * epoch * tokens / sum(lengths)


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
