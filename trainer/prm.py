"""Training our own reward models: soft cross-entropy at every step's last token, or at the last
step's alone, or on pairs (trainer/prm_pairs.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.types import StepLabels
from search.pairs import PairRules, pairs_of_labels
from trainer.batches import set_accumulation
from trainer.calibrating import calibrate
from trainer.checkpoints import CheckpointManifest
from trainer.checks import check_policy
from trainer.global_mean import GlobalMeanTrainer
from trainer.label_rows import outcome_rows, read_training_rows
from trainer.lora import ALL_WEIGHTS, REWARD_MODEL, LoraSettings, add_adapter
from trainer.models import TARGETS, load_tokenizer, reward_model_from_policy
from trainer.pair_rows import fitting, read_pairs
from trainer.prm_card import model_card
from trainer.prm_pairs import train_on_pairs
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


class PRMTrainer(GlobalMeanTrainer):
    """Every labelled step weighs 1."""

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
    trainer.train_on()
    return trainer


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """`model` is the folder the reward model starts from: a policy (its head is then new) or a
    reward model. It is trained on `targets`:

    - "steps": the labels of all steps (`labels`, folders of the label or the import stage);
    - "outcome": the last labels of finished solutions alone;
    - "pairs": preference pairs, those of `pairs` (folders of the export stage, their step_pairs
      and solution_pairs, or sources of rows, see `data.sources`) and those made of `labels` by the
      rules `per_side`, `min_gap` and `min_visits` (search/pairs.py).

    `calibration_labels` are folders of held-out labels, on which temperature and bias are fitted
    (trainer/calibrating.py). Rows of more than `max_length` tokens (null: the model's context) are
    left out. `global_batch_size` as in SFT."""

    model: str
    labels: list[str] = field(default_factory=list[str])
    targets: str = "steps"
    pairs: list[str] = field(default_factory=list[str])
    per_side: int = 2
    min_gap: float = 0.3
    min_visits: int = 4
    calibration_labels: list[str] = field(default_factory=list[str])
    max_length: int | None = None
    global_batch_size: int | None = None
    longest_first: bool = True  # as in SFT

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; allowed: 1 or more, or null")
        if self.targets not in TARGETS_OF:
            raise ValueError(f"targets is {self.targets!r}; allowed: {', '.join(TARGETS_OF)}")
        if self.pairs and self.targets != "pairs":
            raise ValueError(f"pairs are given, but targets is {self.targets!r}")
        if not self.labels and not self.pairs:
            raise ValueError("labels is empty; there must be a folder of labels, or of pairs")
        self.rules()

    def rules(self) -> PairRules:
        return PairRules(per_side=self.per_side, min_gap=self.min_gap, min_visits=self.min_visits)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """`sequences` is every one trained on, of which a row of the data set has `per_row`."""

    trainer: Any
    sequences: list[TokenRow]
    metrics: dict[str, Any]
    per_row: int = 1


def run_prm(
    runtime: RuntimeConfig,
    config: RewardModelConfig,
    arguments: Any,
    lora: LoraSettings = ALL_WEIGHTS,
) -> None:
    """Train a PRM and save it as a Hugging Face folder; with LoRA the adapter beside it. Raises
    ValueError, before a model is loaded, for parts that do not fit."""
    set_accumulation(arguments, config.global_batch_size)
    inputs: dict[str, str | None] = {"model": config.model}
    for name in ("labels", "pairs", "calibration_labels"):
        inputs |= {f"{name}_{i}": folder for i, folder in enumerate(getattr(config, name))}
    check = partial(check_policy, config.model)
    with run_stage("prm", runtime, [config, lora, arguments], inputs, check) as record:
        folder = Path(runtime.output_dir)
        model = reward_model_from_policy(config.model)
        setattr(model.config, TARGETS, config.targets)
        tokenizer = load_tokenizer(config.model)
        context = getattr(model.config, "max_position_embeddings", None)
        config = replace(config, max_length=config.max_length or context)
        calibration, _ = read_training_rows(config.calibration_labels, tokenizer, config.max_length)
        model = add_adapter(model, lora, REWARD_MODEL, runtime.seed)
        trained = TARGETS_OF[config.targets](model, tokenizer, config, arguments)
        save_trained(trained.trainer, tokenizer, folder)
        record.metrics |= trained.metrics
        record.metrics["loss"] = last_loss(trained.trainer)
        record.training(
            "reward", *training_cost(trained.trainer, trained.sequences, trained.per_row)
        )
        if trained.trainer.is_world_process_zero():
            (folder / "README.md").write_text(model_card(config.targets), encoding="utf-8")
            if config.calibration_labels:
                if config.targets == "outcome":
                    calibration = outcome_rows(calibration, tokenizer.eos_token_id)
                calibrate(folder, calibration, trained.trainer.model.device, record)


def _on_steps(model: Any, tokenizer: Any, config: RewardModelConfig, arguments: Any) -> Trained:
    rows, too_long = read_training_rows(config.labels, tokenizer, config.max_length)
    return _on_labels(model, tokenizer, rows, arguments, config, {"rows_too_long": too_long})


def _on_outcomes(model: Any, tokenizer: Any, config: RewardModelConfig, arguments: Any) -> Trained:
    rows, too_long = read_training_rows(config.labels, tokenizer, config.max_length)
    finished = outcome_rows(rows, tokenizer.eos_token_id)
    counts = {"rows_too_long": too_long, "rows_unfinished": len(rows) - len(finished)}
    return _on_labels(model, tokenizer, finished, arguments, config, counts)


def _on_labels(
    model: Any,
    tokenizer: Any,
    rows: Sequence[StepLabels],
    arguments: Any,
    config: RewardModelConfig,
    counts: dict[str, int],
) -> Trained:
    trainer = train_prm(model, tokenizer, rows, arguments, longest_first=config.longest_first)
    labelled_steps = sum(len(row.labels) for row in rows)
    return Trained(
        trainer=trainer,
        sequences=[
            TokenRow(
                prompt_ids=row.prompt_ids,
                completion_ids=tuple(token for step in row.completion_ids for token in step),
            )
            for row in rows
        ],
        metrics={"rows": len(rows), **counts, "labelled_steps": labelled_steps},
    )


def _on_pairs(model: Any, tokenizer: Any, config: RewardModelConfig, arguments: Any) -> Trained:
    labels, too_long = read_training_rows(config.labels, tokenizer, config.max_length)
    read = read_pairs(config.pairs, tokenizer)
    given = fitting(read, config.max_length)
    made = list(pairs_of_labels(labels, tokenizer.eos_token_id, config.rules()))
    pairs = [*given, *made]
    trainer = train_on_pairs(model, tokenizer, pairs, arguments)
    return Trained(
        trainer=trainer,
        sequences=[
            TokenRow(prompt_ids=pair.prompt_token_ids, completion_ids=ids)
            for pair in pairs
            for ids in (pair.chosen_token_ids, pair.rejected_token_ids)
        ],
        metrics={
            "pairs": len(pairs),
            "pairs_of_labels": len(made),
            "pairs_too_long": len(read) - len(given),
            "rows_too_long": too_long,
        },
        per_row=2,
    )


# targets -> how the model is trained on them
TARGETS_OF: dict[str, Callable[[Any, Any, RewardModelConfig, Any], Trained]] = {
    "steps": _on_steps,
    "outcome": _on_outcomes,
    "pairs": _on_pairs,
}
