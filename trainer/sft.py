"""Supervised fine-tuning rows and trainer (TRL's SFTTrainer), shared by the first policy and by
expert iteration: prompt and completion as token ids, loss on the completion only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.types import Demonstration


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One training row. `completion_ids` ends with the end token and is never re-encoded."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


def demonstration_rows(demonstrations: Sequence[Demonstration], tokenizer: Any) -> list[TokenRow]:
    return [
        TokenRow(
            prompt_ids=tuple(tokenizer.encode(d.problem.prompt, add_special_tokens=False)),
            completion_ids=(
                *tokenizer.encode(d.solution, add_special_tokens=False),
                tokenizer.eos_token_id,
            ),
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


def train_on_rows(model: Any, tokenizer: Any, rows: Sequence[TokenRow], arguments: Any) -> Any:
    """Train in place with TRL's SFTTrainer; resumes from the newest complete checkpoint.

    `arguments` is an `SFTConfig`. Returns the finished trainer. Raises ValueError without rows.
    """
    from trl import SFTTrainer

    from trainer.runtime import CheckpointManifest, latest_checkpoint

    if not rows:
        raise ValueError("there is no row to train on")
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=token_dataset(rows),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest()],
    )
    checkpoint = latest_checkpoint(Path(arguments.output_dir))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer
