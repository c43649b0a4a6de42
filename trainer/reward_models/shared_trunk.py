"""Trains a reward model whose trunk still is the policy's: one decoder with two heads, as in
AlphaZero (1712.01815). A search then computes keys and values once for both.

The loss is the cross-entropy of the step labels plus `weight` times the Kullback-Leibler divergence
of the policy before the training from the policy after it, at the tokens of the same solutions.
They are the policy's own samples, so nothing else has to be read to keep it as it was
(learning without forgetting, 1606.09282).

Legend: B sequences, T positions, N tokens of solutions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.flops import flop_model
from data.types import TokenRow
from rewards.models.folders import load_reward_model
from rewards.models.vocabulary import NEVER
from trainer.models.loading import load_policy, save_model, whole_models
from trainer.reward_models.step_labels import (
    PRMTrainer,
    StepLabelCollator,
    soft_cross_entropy,
)

OWN, SHARED, FROZEN = "own", "shared", "frozen"
TRUNKS = (OWN, SHARED, FROZEN)
POLICY_FOLDER = "policy"
NEW_WEIGHTS = ("score.", "classifier.")  # names of the head in transformers' token classifiers


def divergence(before_NV: Tensor, after_NV: Tensor) -> Tensor:
    """The sum over N positions of KL(before || after), in nats, of two tables of logits. Tokens
    that were forbidden before (`forbid_unknown_tokens`) still are, whatever their logit is now."""
    least = max(NEVER, torch.finfo(before_NV.dtype).min / 2)
    logprobs_NV = torch.log_softmax(after_NV.float().masked_fill(before_NV <= least, NEVER), dim=-1)
    kept_NV = torch.log_softmax(before_NV.float(), dim=-1)
    return (kept_NV.exp() * (kept_NV - logprobs_NV)).sum()


def freeze_trunk(model: Any) -> None:
    """Train only the head of a token classifier: the trunk stays the policy's."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(NEW_WEIGHTS))


@dataclass(frozen=True, kw_only=True)
class KeptPolicy:
    """The policy as it was before the training, and how much a change of it costs. A head that does
    not share its weights with the embeddings stays as it was."""

    model: Any
    weight: float
    """Nats of loss per nat of divergence, summed over the tokens of a labelled step."""

    def logits_after(self, classifier: Any, hidden_ND: Tensor) -> Tensor:
        """The logits of the policy that has the classifier's trunk. Shape (N, V)."""
        head = self.model.get_output_embeddings()
        weight_VD, bias_V = head.weight, getattr(head, "bias", None)
        if self.model.config.get_text_config().tie_word_embeddings:
            weight_VD = classifier.get_input_embeddings().weight
        logits_NV = torch.nn.functional.linear(hidden_ND.to(weight_VD.dtype), weight_VD, bias_V)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits_NV / cap) * cap if cap else logits_NV


@dataclass(frozen=True, kw_only=True)
class SharedTrunkCollator(StepLabelCollator):
    """Adds `solution_BT`: 1 where the next token is a token of the solution."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(rows)
        solution_BT = torch.zeros_like(batch["input_ids"])
        for i, row in enumerate(rows):
            solution_BT[i, row["prompt_length"] - 1 : len(row["input_ids"]) - 1] = 1
        return batch | {"solution": solution_BT}


class SharedTrunkTrainer(PRMTrainer):
    """A step's label and the tokens of the step have weights that do not depend on the batch: both
    sums are divided by the number of labels."""

    kept: KeptPolicy

    def loss_of(
        self, model: Any, batch: dict[str, Any], total_weight: Tensor | None
    ) -> tuple[Tensor, Any]:
        labels_BT, solution_BT = batch.pop("labels"), batch.pop("solution").bool()
        outputs = model(**batch, output_hidden_states=True)
        loss = soft_cross_entropy(outputs.logits, labels_BT, total_weight)
        classifier = self.accelerator.unwrap_model(model)
        hidden_ND = outputs.hidden_states[-1][solution_BT]
        with torch.no_grad():
            before_NV = self.kept.model(**batch, use_cache=False).logits[solution_BT]
        changed = divergence(before_NV, self.kept.logits_after(classifier, hidden_ND))
        labels = self.weight_of({"labels": labels_BT}) if total_weight is None else total_weight
        return loss + self.kept.weight * changed / labels, outputs


def keeping(kept: KeptPolicy) -> type[SharedTrunkTrainer]:
    """A trainer that keeps this policy."""

    class Keeping(SharedTrunkTrainer):
        pass

    Keeping.kept = kept
    return Keeping


def keep_policy(name: str, weight: float, device: Any) -> KeptPolicy:
    """The policy of a folder or hub id, as the one to keep."""
    with whole_models():
        model, _ = load_policy(name)
    return KeptPolicy(model=model.eval().requires_grad_(False).to(device), weight=weight)


def save_policy(start: str, folder: Path) -> None:
    """Write the policy that has the trunk of the reward model in `folder`, and the head and the
    tokenizer of the policy `start`, to the folder `policy` in it."""
    with whole_models():
        policy, tokenizer = load_policy(start)
        classifier = load_reward_model(str(folder))
    policy.base_model.load_state_dict(classifier.base_model.state_dict())
    policy.tie_weights()
    save_model(policy, tokenizer, folder / POLICY_FOLDER)


def policy_flops(kept: KeptPolicy, rows: Sequence[TokenRow]) -> float:
    """The further FLOPs of one epoch: the old policy's forward passes, and the new policy's head
    forwards and backwards at the tokens of the solutions. `rows` are the sequences of the data set,
    each once."""
    policy = flop_model(kept.model)
    return sum(
        policy.forward(0, length) + 3 * 2 * policy.head_parameters * len(row.completion_ids)
        for row in rows
        for length in [len(row.prompt_ids) + len(row.completion_ids)]
    )
