"""This stage trains a reward model. The loss is soft cross-entropy at the last token of every step
or of the last step only, or a loss on pairs (trainer/reward_models/step_pairs.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.token_text import end_token_ids
from data.types import StepLabels, TokenRow
from rewards.models.folders import TARGETS, load_tokenizer
from search.trees.preference_pairs import PairRules, pairs_of_labels
from trainer.labels.label_files import outcome_rows, read_training_rows
from trainer.labels.pair_files import fitting, read_pairs
from trainer.models.compatibility import check_policy
from trainer.models.loading import reward_model_from_policy
from trainer.models.lora import ALL_WEIGHTS, REWARD_MODEL, LoraSettings, add_adapter
from trainer.reward_models.calibration import calibrate
from trainer.reward_models.model_card import model_card
from trainer.reward_models.step_labels import train_prm
from trainer.reward_models.step_pairs import train_on_pairs
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import numbered_inputs, run_stage
from trainer.training.batch_size import set_accumulation
from trainer.training.trained import last_loss, save_trained, training_cost


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """The model that a reward model starts from, and its training data. Rows longer than
    `max_length` are left out."""

    model: str
    """Folder of the policy or reward model to start from; a policy gets a new head."""
    labels: list[str] = field(default_factory=list[str])
    """Folders of the label or the import stage."""
    targets: str = "steps"
    """Training targets: steps (all labels), outcome (last labels only) or pairs."""
    preference_pairs: list[str] = field(default_factory=list[str])
    """Folders of the export stage, or sources, with preference pairs; where targets is pairs."""
    per_side: int = 2
    """Maximum of chosen, and of rejected, steps after one prefix, in pairs made from labels."""
    min_gap: float = 0.3
    """Minimum difference between the two labels of a pair."""
    min_visits: int = 4
    """Minimum number of rollouts of a label in a pair."""
    pairs_within: str = "prefix"
    """Pairs made from labels are of steps after one prefix, or of one problem: prefix, problem."""
    calibration_labels: list[str] = field(default_factory=list[str])
    """Folders of held-out labels that fit the temperature and the bias."""
    max_length: int | None = None
    """Maximum number of tokens per row; null: the model's context."""
    global_batch_size: int | None = None
    """Sequences per update, over all processes; null: gradient_accumulation_steps decides."""
    longest_first: bool = True
    """Put the longest rows first, so that memory runs out at the start or never."""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; allowed: 1 or more, or null")
        if self.targets not in TARGETS_OF:
            raise ValueError(f"targets is {self.targets!r}; allowed: {', '.join(TARGETS_OF)}")
        if self.preference_pairs and self.targets != "pairs":
            raise ValueError(
                f"preference_pairs is given, but targets is {self.targets!r}; set targets: pairs"
            )
        if not self.labels and not self.preference_pairs:
            raise ValueError("labels is empty; it must name at least one folder of labels or pairs")
        self.rules()

    def rules(self) -> PairRules:
        return PairRules(
            per_side=self.per_side,
            min_gap=self.min_gap,
            min_visits=self.min_visits,
            within=self.pairs_within,
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a training. `sequences` holds the sequences of the data set, each once."""

    trainer: Any
    sequences: list[TokenRow]
    metrics: dict[str, Any]


def run_prm(
    runtime: RuntimeConfig,
    config: RewardModelConfig,
    arguments: Any,
    lora: LoraSettings = ALL_WEIGHTS,
) -> None:
    """Train a PRM and save it as a Hugging Face folder. With LoRA the folder also holds the
    adapter. Raises ValueError, before a model is loaded, for parts that do not fit together."""
    set_accumulation(arguments, config.global_batch_size)
    inputs: dict[str, str | None] = {"model": config.model}
    for name in ("labels", "preference_pairs", "calibration_labels"):
        inputs |= numbered_inputs(name, getattr(config, name))
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
        record.training("reward", *training_cost(trained.trainer, trained.sequences))
        if trained.trainer.is_world_process_zero():
            (folder / "README.md").write_text(model_card(config.targets), encoding="utf-8")
            if config.calibration_labels:
                if config.targets == "outcome":
                    calibration = outcome_rows(calibration, end_token_ids(tokenizer))
                calibrate(folder, calibration, trained.trainer.model.device, record)


def _on_steps(model: Any, tokenizer: Any, config: RewardModelConfig, arguments: Any) -> Trained:
    rows, too_long = read_training_rows(config.labels, tokenizer, config.max_length)
    return _on_labels(model, tokenizer, rows, arguments, config, {"rows_too_long": too_long})


def _on_outcomes(model: Any, tokenizer: Any, config: RewardModelConfig, arguments: Any) -> Trained:
    rows, too_long = read_training_rows(config.labels, tokenizer, config.max_length)
    finished = outcome_rows(rows, end_token_ids(tokenizer))
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
    read = read_pairs(config.preference_pairs, tokenizer)
    given = fitting(read, config.max_length)
    made = list(pairs_of_labels(labels, end_token_ids(tokenizer), config.rules()))
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
    )


# targets -> the function that trains the model on them
TARGETS_OF: dict[str, Callable[[Any, Any, RewardModelConfig, Any], Trained]] = {
    "steps": _on_steps,
    "outcome": _on_outcomes,
    "pairs": _on_pairs,
}
