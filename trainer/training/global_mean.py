"""transformers' Trainer for losses that are means over all weighted parts of a step's batch. The
loss does not depend on the division into micro-batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from trainer.training.checkpoints import train_to_the_end


class GlobalMeanTrainer(Trainer):
    """A subclass computes the weight of a batch, and its loss divided by a given total weight.
    (transformers' losses take integer labels, and count only these.)"""

    def weight_of(self, batch: dict[str, Any]) -> float:
        raise NotImplementedError

    def loss_of(
        self, model: Any, batch: dict[str, Any], total_weight: Tensor | None
    ) -> tuple[Tensor, Any]:
        """The batch's loss and the model's outputs. Without a total weight, divide by the batch's
        weight."""
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
