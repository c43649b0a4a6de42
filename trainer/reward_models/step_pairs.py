"""Trains a process preference model on pairs of steps with the Bradley-Terry loss (rStar-Math,
2501.04519, section 3.3, after 2203.02155, section 3.5).

Legend: B pairs, S = 2B sequences (first all chosen, then all rejected ones), T positions, C = 2
classes (incorrect, correct).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.types import StepPair
from trainer.training.checkpoints import CheckpointManifest
from trainer.training.global_mean import GlobalMeanTrainer


def last_margins(logits_STC: Tensor, mask_ST: Tensor) -> Tensor:
    """The score r of each sequence: the difference of the two classes' logits at its last token.
    P(correct) is sigmoid(r). Padding is on the right. Shape S."""
    ends_S = mask_ST.sum(1) - 1
    at_end_SC = logits_STC[torch.arange(len(ends_S), device=ends_S.device), ends_S].float()
    return at_end_SC[:, 1] - at_end_SC[:, 0]


def pairwise_loss(
    margins_S: Tensor, weights_B: Tensor, total_weight: Tensor | None = None
) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected), in nats. The weighted sum is divided by `total_weight`
    (of the whole batch, for gradient accumulation and several processes), or else by the weights
    here."""
    chosen_B, rejected_B = margins_S.chunk(2)
    losses_B = -torch.nn.functional.logsigmoid(chosen_B - rejected_B)
    total = weights_B.sum() if total_weight is None else total_weight
    return (weights_B * losses_B).sum() / total


@dataclass(frozen=True, kw_only=True)
class PairCollator:
    """Pads rows of `chosen`, `rejected` (token ids) and `weight` on the right. Both sequences of a
    pair are in one batch."""

    pad_token_id: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        sequences = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
        longest = max(map(len, sequences))
        ids_ST = torch.full((len(sequences), longest), self.pad_token_id, dtype=torch.long)
        mask_ST = torch.zeros((len(sequences), longest), dtype=torch.long)
        for i, ids in enumerate(sequences):
            ids_ST[i, : len(ids)] = torch.tensor(ids)
            mask_ST[i, : len(ids)] = 1
        weights_B = torch.tensor([row["weight"] for row in rows], dtype=torch.float)
        return {"input_ids": ids_ST, "attention_mask": mask_ST, "weights": weights_B}


def pair_dataset(pairs: Sequence[StepPair]) -> Any:
    """A data set with `chosen` and `rejected` (whole sequences of token ids) and `weight`."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "chosen": [[*p.prompt_token_ids, *p.chosen_token_ids] for p in pairs],
            "rejected": [[*p.prompt_token_ids, *p.rejected_token_ids] for p in pairs],
            "weight": [p.weight for p in pairs],
        }
    )


class PairTrainer(GlobalMeanTrainer):
    """The weight of a pair is its `weight`."""

    def weight_of(self, batch: dict[str, Any]) -> float:
        return float(batch["weights"].sum())

    def loss_of(
        self, model: Any, batch: dict[str, Any], total_weight: Tensor | None
    ) -> tuple[Tensor, Any]:
        weights_B = batch.pop("weights")
        outputs = model(**batch)
        margins_S = last_margins(outputs.logits, batch["attention_mask"])
        return pairwise_loss(margins_S, weights_B, total_weight), outputs


def train_on_pairs(model: Any, tokenizer: Any, pairs: Sequence[StepPair], arguments: Any) -> Any:
    """Train a two-class token classifier in place, and resume from the newest complete checkpoint.
    Raises ValueError if there are no pairs. `arguments` is a `TrainingArguments`."""
    if not pairs:
        raise ValueError("there is no pair to train on")
    arguments.remove_unused_columns = False
    trainer = PairTrainer(
        model=model,
        args=arguments,
        train_dataset=pair_dataset(pairs),
        data_collator=PairCollator(pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest()],
    )
    trainer.train_on()
    return trainer
