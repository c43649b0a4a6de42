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
from trainer.training.checkpoints import ZERO_2, optimizer_sharding


def training_cost(trainer: Any, rows: Sequence[TokenRow]) -> tuple[int, float]:
    """The tokens and the FLOPs of a training (a backward pass costs two forward passes).

    The tokens are those of the batches that the trainer took, without padding: the last batch of
    an epoch can be short. `rows` are the sequences of the data set, each once. Their FLOPs are
    multiplied by the tokens of the training per token of the data set, which is exact for whole
    epochs.
    """
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    model = flop_model(trainer.model)
    tokens = int(trainer.state.num_input_tokens_seen)
    epoch = sum(model.forward(0, length) for length in lengths)
    return tokens, 3 * epoch * tokens / sum(lengths)


def last_loss(trainer: Any) -> float | None:
    """The mean loss of the last logged steps. (The Trainer also gives a mean over all steps, but in
    a resumed run that mean covers only the steps since the restart.)"""
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return logged[-1] if logged else None


def save_trained(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Save the final weights (`save_weights`) and the history of the training. Every process must
    call this function."""
    save_weights(trainer, tokenizer, folder)
    if trainer.is_world_process_zero():
        trainer.save_state()


def save_weights(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Save the present weights, gathered from all processes, as a Hugging Face folder. A LoRA
    adapter is saved to `adapter`, a peft folder, and the merged model to `folder`. Every process
    must call this function."""
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
