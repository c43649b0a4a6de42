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
from trainer.models.compatibility import check_policy, check_policy_head
from trainer.models.loading import reward_model_from_policy
from trainer.models.lora import ALL_WEIGHTS, REWARD_MODEL, LoraSettings, add_adapter
from trainer.reward_models.calibration import calibrate
from trainer.reward_models.model_card import model_card
from trainer.reward_models.shared_trunk import (
    FROZEN,
    OWN,
    SHARED,
    TRUNKS,
    KeptPolicy,
    SharedTrunkCollator,
    freeze_trunk,
    keep_policy,
    keeping,
    policy_flops,
    save_policy,
)
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
    trunk: str = "own"
    """Decoder under the head: own, shared (also the policy's, see folder `policy`) or frozen."""
    policy_weight: float = 1.0
    """Nats of loss per nat by which the policy changes in a step, with the trunk shared."""
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
        if self.trunk not in TRUNKS:
            raise ValueError(f"trunk is {self.trunk!r}; allowed: {', '.join(TRUNKS)}")
        if self.trunk != OWN and self.targets == "pairs":
            raise ValueError(f"trunk is {self.trunk!r}, but targets is 'pairs'; set targets: steps")
        if self.policy_weight < 0:
            raise ValueError(f"policy_weight is {self.policy_weight}; it must not be negative")
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
    """The result of a training. `sequences` holds the sequences of the data set, each once, and
    `policy_flops` what one epoch costs beside the reward model itself."""

    trainer: Any
    sequences: list[TokenRow]
    metrics: dict[str, Any]
    policy_flops: float = 0.0


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
    check = partial(_check, config, lora)
    with run_stage("prm", runtime, [config, lora, arguments], inputs, check) as record:
        folder = Path(runtime.output_dir)
        model = reward_model_from_policy(config.model)
        setattr(model.config, TARGETS, config.targets)
        tokenizer = load_tokenizer(config.model)
        context = getattr(model.config, "max_position_embeddings", None)
        config = replace(config, max_length=config.max_length or context)
        calibration, _ = read_training_rows(config.calibration_labels, tokenizer, config.max_length)
        model = add_adapter(model, lora, REWARD_MODEL, runtime.seed)
        if config.trunk == FROZEN:
            freeze_trunk(model)
        trained = TARGETS_OF[config.targets](model, tokenizer, config, arguments)
        save_trained(trained.trainer, tokenizer, folder)
        record.metrics |= trained.metrics
        record.metrics["loss"] = last_loss(trained.trainer)
        record.training("reward", *_cost(trained, config.trunk))
        if trained.trainer.is_world_process_zero():
            if config.trunk == SHARED:
                save_policy(config.model, folder)
            (folder / "README.md").write_text(
                model_card(config.targets, with_policy=config.trunk == SHARED), encoding="utf-8"
            )
            if config.calibration_labels:
                if config.targets == "outcome":
                    calibration = outcome_rows(calibration, end_token_ids(tokenizer))
                calibrate(folder, calibration, trained.trainer.model.device, record)


def _check(config: RewardModelConfig, lora: LoraSettings) -> None:
    """Raises ValueError for a model that cannot be trained so."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    check_policy(config.model)
    if config.trunk == OWN:
        return
    if lora.lora_rank:
        raise ValueError(
            f"trunk is {config.trunk!r}, but lora_rank is {lora.lora_rank}: an adapter would "
            "change the trunk of the reward model alone; set lora_rank: 0"
        )
    if config.trunk == SHARED:
        check_policy_head(config.model)
        if is_deepspeed_zero3_enabled():
            raise ValueError(
                "trunk is 'shared', but ZeRO-3 divides the weights of the policy's head among the "
                "processes: use recipes/accelerate/zero2.yaml"
            )


def _cost(trained: Trained, trunk: str) -> tuple[int, float]:
    """The tokens and the FLOPs of a training. A frozen trunk has no backward pass."""
    tokens, flops = training_cost(trained.trainer, trained.sequences)
    if trunk == FROZEN:
        head = sum(p.numel() for p in trained.trainer.model.parameters() if p.requires_grad)
        flops = flops / 3 + 4 * head * tokens
    length = sum(len(row.prompt_ids) + len(row.completion_ids) for row in trained.sequences)
    return tokens, flops + trained.policy_flops * tokens / length


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
    train = partial(train_prm, model, tokenizer, rows, arguments)
    train = partial(train, longest_first=config.longest_first)
    kept: KeptPolicy | None = None
    if config.trunk == SHARED:
        kept = keep_policy(config.model, config.policy_weight, arguments.device)
        train = partial(train, trainer_class=keeping(kept), collator=SharedTrunkCollator)
    trainer = train()
    labelled_steps = sum(len(row.labels) for row in rows)
    sequences = [
        TokenRow(
            prompt_ids=row.prompt_ids,
            completion_ids=tuple(token for step in row.completion_ids for token in step),
        )
        for row in rows
    ]
    return Trained(
        trainer=trainer,
        sequences=sequences,
        metrics={"rows": len(rows), **counts, "labelled_steps": labelled_steps},
        policy_flops=0.0 if kept is None else policy_flops(kept, sequences),
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
