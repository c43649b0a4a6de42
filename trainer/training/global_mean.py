"""transformers' Trainer for losses that are means over all that bears loss in a step's batch,
however it is cut into micro-batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from trainer.training.checkpoints import train_to_the_end


class GlobalMeanTrainer(Trainer):
    """A subclass says what a batch weighs and what its loss is, divided by a given total weight.
    (transformers' own losses take integer labels, and count these alone.)"""

    def weight_of(self, batch: dict[str, Any]) -> float:
        raise NotImplementedError

    def loss_of(
        self, model: Any, batch: dict[str, Any], total_weight: Tensor | None
    ) -> tuple[Tensor, Any]:
        """The batch's loss and the model's outputs. Without a total weight the batch is all."""
        raise NotImplementedError

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> Any:
        weight = sum(self.weight_of(batch) for batch in batch_samples)
        weights: Any = self.accelerator.gather(torch.as_tensor(weight, device=device))
        return weights.sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss, outputs = self.loss_of(model, inputs, num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages the gradients
        return (loss, outputs) if return_outputs else loss

    def train_on(self) -> None:
        """Train from the newest complete checkpoint, if there is one."""
        self.model_accepts_loss_kwargs = True
        train_to_the_end(self)
