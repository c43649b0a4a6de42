"""Demonstrations as rows of token ids, and TRL's SFTTrainer on them. The loss covers the
completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data.token_text import TokenText
from data.types import Demonstration, TokenRow
from trainer.training.checkpoints import CheckpointManifest, train_to_the_end
from trainer.training.row_order import LONGEST_FIRST, SHUFFLED, RowOrder, in_order
from trainer.training.step_progress import StepProgress


def demonstration_rows(demonstrations: Sequence[Demonstration], tokenizer: Any) -> list[TokenRow]:
    text = TokenText(tokenizer)
    return [
        TokenRow(
            prompt_ids=text.encode_prompt(d.problem.prompt),
            completion_ids=(*text.encode(d.solution), tokenizer.eos_token_id),
        )
        for d in demonstrations
    ]


def token_dataset(rows: Sequence[TokenRow]) -> Any:
    """A dataset with `input_ids` and `labels` (-100 on the prompt)."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [[*row.prompt_ids, *row.completion_ids] for row in rows],
            "labels": [[-100] * len(row.prompt_ids) + list(row.completion_ids) for row in rows],
        }
    )


def train_on_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    arguments: Any,
    *,
    order: RowOrder = LONGEST_FIRST,
    watching: Callable[[Any], Sequence[Any]] = lambda trainer: (),
) -> Any:
    """Train in place with TRL's SFTTrainer, and resume from the newest complete checkpoint.

    `arguments` is an `SFTConfig`. `watching` makes further callbacks of the trainer. Returns the
    finished trainer. Raises ValueError if there are no rows, for two orders of rows at once, and
    for a checkpoint from which this run cannot continue.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    if not rows:
        raise ValueError("there is no row to train on")
    if order != SHUFFLED and arguments.train_sampling_strategy != "random":
        raise ValueError(
            f"train_sampling_strategy is {arguments.train_sampling_strategy!r}, but longest_first "
            "or sorted_updates decides the order of the rows: set both to false"
        )
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    trainer = in_order(SFTTrainer, order)(
        model=model,
        args=arguments,
        train_dataset=token_dataset(rows),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest(), StepProgress()],
    )
    for callback in watching(trainer):
        trainer.add_callback(callback)
    train_to_the_end(trainer)
    return trainer
