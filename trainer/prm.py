"""Training a process reward model: soft cross-entropy at every step's last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from data.types import StepLabels
from trainer.batches import set_accumulation
from trainer.checkpoints import CheckpointManifest, resume_from
from trainer.checks import check_policy
from trainer.label_rows import read_training_rows
from trainer.lora import ALL_WEIGHTS, REWARD_MODEL, LoraSettings, add_adapter
from trainer.models import load_tokenizer, reward_model_from_policy
from trainer.row_order import taking_longest_first
from trainer.runtime import RuntimeConfig
from trainer.sft import TokenRow, last_loss, save_trained, training_cost
from trainer.stage import run_stage
from trainer.step_progress import StepProgress

IGNORED = -100.0


def soft_cross_entropy(
    logits_BTC: Tensor, labels_BT: Tensor, num_labels_in_batch: Tensor | None = None
) -> Tensor:
    """Cross-entropy, nats, of P(correct) against soft labels in [0, 1]; -100 is ignored.

    B sequences, T positions, C = 2 classes (incorrect, correct). Summed and divided by
    `num_labels_in_batch` (a global count, for gradient accumulation and several processes) or by
    the labels present.
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
    """`input_ids` and float `labels`, which stand at each step's last token."""
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
    return Dataset.from_dict({"input_ids": input_ids, "labels": labels})


class PRMTrainer(Trainer):
    """transformers' Trainer with soft labels (its own losses cast labels to integers)."""

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> Any:
        count = sum(int((batch["labels"] != IGNORED).sum()) for batch in batch_samples)
        counts: Any = self.accelerator.gather(torch.as_tensor(count, device=device))
        return counts.sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        labels_BT = inputs.pop("labels")
        outputs = model(**inputs)
        loss = soft_cross_entropy(outputs.logits, labels_BT, num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages the gradients
        return (loss, outputs) if return_outputs else loss


def train_prm(
    model: Any,
    tokenizer: Any,
    rows: Sequence[StepLabels],
    arguments: Any,
    *,
    longest_first: bool = True,
) -> Any:
    """Train in place; resumes from the newest complete checkpoint. Raises ValueError without
    rows and for a checkpoint that cannot be gone on from. `arguments` is a `TrainingArguments`."""
    if not rows:
        raise ValueError("there is no labelled row to train on")
    arguments.remove_unused_columns = False
    trainer = (taking_longest_first(PRMTrainer) if longest_first else PRMTrainer)(
        model=model,
        args=arguments,
        train_dataset=label_dataset(rows),
        data_collator=StepLabelCollator(pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest(), StepProgress()],
    )
    trainer.model_accepts_loss_kwargs = True
    trainer.train(resume_from_checkpoint=resume_from(arguments))
    return trainer


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """`model` is the folder the reward model starts from: a policy (its head is then new) or a
    reward model. `labels` are folders of the label or the import stage. Rows of more than
    `max_length` tokens (null: the model's context) are left out. `global_batch_size` as in SFT."""

    model: str
    labels: list[str]
    max_length: int | None = None
    global_batch_size: int | None = None
    longest_first: bool = True  # as in SFT

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; allowed: 1 or more, or null")


MODEL_CARD = """---
library_name: transformers
pipeline_tag: token-classification
tags: [process-reward-model]
---
A process reward model, trained with thinktree on step labels of its policy's own solutions.

- Asked with the policy's token ids: the prompt as the policy gets it, then the solution as sampled,
  with its end token. A step ends at a token whose text has a line break, or at the last token.
- Read at every step's last token. Label 1 is "correct": softmax(logits / T)[1] is the estimated
  probability that the solution, continued by the policy from there, ends correct. T is
  `thinktree_temperature` in config.json, 1 where it is absent.
- `thinktree_convention` in config.json is "thinktree". It loads in plain transformers:

```python
from transformers import AutoModelForTokenClassification

model = AutoModelForTokenClassification.from_pretrained(folder)
scores = (model(input_ids=ids).logits / temperature).softmax(-1)[..., 1]
```
"""


def write_model_card(trainer: Any, folder: Path) -> None:
    """A README.md that says how the model is asked and read."""
    if trainer.is_world_process_zero():
        (folder / "README.md").write_text(MODEL_CARD, encoding="utf-8")


def run_prm(
    runtime: RuntimeConfig,
    config: RewardModelConfig,
    arguments: Any,
    lora: LoraSettings = ALL_WEIGHTS,
) -> None:
    """Train a PRM on step labels and save it as a Hugging Face folder; with LoRA the adapter beside
    it. Raises ValueError, before a model is loaded, for parts that do not fit."""
    set_accumulation(arguments, config.global_batch_size)
    inputs: dict[str, str | None] = {"model": config.model}
    inputs |= {f"labels_{i}": folder for i, folder in enumerate(config.labels)}
    check = partial(check_policy, config.model)
    with run_stage("prm", runtime, [config, lora, arguments], inputs, check) as record:
        model = reward_model_from_policy(config.model)
        tokenizer = load_tokenizer(config.model)
        context = getattr(model.config, "max_position_embeddings", None)
        rows, too_long = read_training_rows(config.labels, tokenizer, config.max_length or context)
        model = add_adapter(model, lora, REWARD_MODEL, runtime.seed)
        trainer = train_prm(model, tokenizer, rows, arguments, longest_first=config.longest_first)
        save_trained(trainer, tokenizer, Path(runtime.output_dir))
        write_model_card(trainer, Path(runtime.output_dir))
        token_rows = [
            TokenRow(
                prompt_ids=row.prompt_ids,
                completion_ids=tuple(token for step in row.completion_ids for token in step),
            )
            for row in rows
        ]
        record.metrics |= {
            "rows": len(rows),
            "rows_too_long": too_long,
            "labelled_steps": sum(len(row.labels) for row in rows),
            "loss": last_loss(trainer),
        }
        record.training("reward", *training_cost(trainer, token_rows))
