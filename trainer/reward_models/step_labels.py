"""Trains a reward model on step labels with soft cross-entropy at each step's last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.types import StepLabels
from trainer.training.checkpoints import CheckpointManifest
from trainer.training.global_mean import GlobalMeanTrainer
from trainer.training.row_order import RowOrder, in_order
from trainer.training.step_progress import StepProgress

IGNORED = -100.0


def soft_cross_entropy(
    logits_BTC: Tensor, labels_BT: Tensor, num_labels_in_batch: Tensor | None = None
) -> Tensor:
    """Cross-entropy, in nats, of P(correct) against soft labels in [0, 1]; labels of -100 are
    ignored.

    B sequences, T positions, C = 2 classes (incorrect, correct). The sum is divided by
    `num_labels_in_batch` (a global count, for gradient accumulation and several processes), or else
    by the number of labels here.
    """
    keep_BT = labels_BT != IGNORED
    logprobs_NC = torch.log_softmax(logits_BTC[keep_BT].float(), dim=-1)
    labels_N = labels_BT[keep_BT].float()
    loss = -(labels_N * logprobs_NC[:, 1] + (1 - labels_N) * logprobs_NC[:, 0]).sum()
    count = num_labels_in_batch if num_labels_in_batch is not None else keep_BT.sum().clamp(min=1)
    return loss / count


@dataclass(frozen=True, kw_only=True)
class StepLabelCollator:
    """Pads rows of `input_ids` and float `labels` on the right."""

    pad_token_id: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids_BT = torch.full((len(rows), longest), self.pad_token_id, dtype=torch.long)
        mask_BT = torch.zeros((len(rows), longest), dtype=torch.long)
        labels_BT = torch.full((len(rows), longest), IGNORED)
        for i, row in enumerate(rows):
            length = len(row["input_ids"])
            ids_BT[i, :length] = torch.tensor(row["input_ids"])
            mask_BT[i, :length] = 1
            labels_BT[i, :length] = torch.tensor(row["labels"])
        return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}


def label_dataset(rows: Sequence[StepLabels]) -> Any:
    """A data set with `input_ids`, float `labels` and `prompt_length`. Labels are at each step's
    last token."""
    from datasets import Dataset

    input_ids: list[list[int]] = []
    labels: list[list[float]] = []
    for row in rows:
        ids = list(row.prompt_ids)
        at = [IGNORED] * len(ids)
        for step, label in zip(row.completion_ids, row.labels, strict=True):
            ids += step
            at += [IGNORED] * (len(step) - 1) + [label]
        input_ids.append(ids)
        labels.append(at)
    prompts = [len(row.prompt_ids) for row in rows]
    return Dataset.from_dict({"input_ids": input_ids, "labels": labels, "prompt_length": prompts})


class PRMTrainer(GlobalMeanTrainer):
    """Every labelled step of a row has the weight 1, whatever the number of its rollouts.

    Pooled labels count their rollouts already: a prefix of n distinct solutions is in n rows, whose
    losses add up to the binomial log-likelihood of its rollouts. A label of fresh rollouts counts
    once, however many they are: more rollouts make it less noisy, not more important. The last
    label is a verdict: it has one rollout, and no noise.
    """

    def weight_of(self, batch: dict[str, Any]) -> float:
        return int((batch["labels"] != IGNORED).sum())

    def loss_of(
        self, model: Any, batch: dict[str, Any], total_weight: Tensor | None
    ) -> tuple[Tensor, Any]:
        labels_BT = batch.pop("labels")
        outputs = model(**batch)
        return soft_cross_entropy(outputs.logits, labels_BT, total_weight), outputs


def train_prm(
    model: Any,
    tokenizer: Any,
    rows: Sequence[StepLabels],
    arguments: Any,
    *,
    longest_first: bool = True,
    trainer_class: type[Any] = PRMTrainer,
    collator: type[Any] = StepLabelCollator,
) -> Any:
    """Train in place, and resume from the newest complete checkpoint. Raises ValueError if there
    are no rows, and for a checkpoint from which this run cannot continue. `arguments` is a
    `TrainingArguments`."""
    if not rows:
        raise ValueError("there is no labelled row to train on")
    arguments.remove_unused_columns = False
    trainer = in_order(trainer_class, RowOrder(longest_first=longest_first))(
        model=model,
        args=arguments,
        train_dataset=label_dataset(rows),
        data_collator=collator(pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest(), StepProgress()],
    )
    trainer.train_on()
    return trainer
