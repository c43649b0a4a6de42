"""Training an outcome reward model on preferences, by TRL's RewardTrainer (Bradley-Terry loss,
2203.02155, section 3.5).

The rows are read and tokenised here, as TRL does it, so that a bad one is named with file and line;
TRL gets token ids. A model trained on conversations is asked in its chat template, one trained on
text in text, with the end token after it; white space at the end of a text is left out of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.types import TokenRow
from rewards.models.folders import CONVENTION, WHOLE_PROMPT
from trainer.reward_models.preferences import (
    ASKED,
    CARD,
    open_scorer,
    read_preferences,
    train_on_preferences,
)
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.skipped_rows import report_bad_rows
from trainer.runtime.stage import numbered_inputs, run_stage
from trainer.training.trained import last_loss, save_trained, training_cost


@dataclass(frozen=True, kw_only=True)
class OutcomePreferenceConfig:
    """What an outcome reward model starts from, and the preferences that it is trained on."""

    model: str
    """Language model (its head is then new) or outcome model to start from: folder or hub id."""
    preferences: list[str]
    """Sources (data/sources.py) of rows in TRL's preference format."""
    whole_prompt: bool = False
    """The rows' prompts are as the policy gets them; false: they are questions alone."""
    max_bad_rows: int = 0
    """Rows that may be unusable before the stage fails."""

    def __post_init__(self) -> None:
        if not self.preferences:
            raise ValueError("preferences is empty; there must be a source of rows")
        if self.max_bad_rows < 0:
            raise ValueError(f"max_bad_rows is {self.max_bad_rows}; allowed: 0 or more")


def run_preferences(
    runtime: RuntimeConfig, config: OutcomePreferenceConfig, arguments: Any
) -> None:
    """Train an outcome reward model and save it as a Hugging Face folder. `arguments` is TRL's
    RewardConfig; rows of more than its `max_length` tokens, or the model's context, are left out.
    A run that was cut off goes on from its last checkpoint."""
    inputs: dict[str, str | None] = {"model": config.model}
    inputs |= numbered_inputs("preferences", config.preferences)
    with run_stage("preferences", runtime, [config, arguments], inputs) as record:
        folder = Path(runtime.output_dir)
        model, tokenizer = open_scorer(config.model, arguments)
        rows, bad = read_preferences(config.preferences, tokenizer)
        report_bad_rows(bad, config.max_bad_rows, folder, record)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        limits = [limit for limit in (arguments.max_length, context) if limit is not None]
        kept = [
            row
            for row in rows
            if max(len(row.chosen_ids), len(row.rejected_ids)) <= min(limits, default=2**31)
        ]
        trainer = train_on_preferences(model, tokenizer, kept, arguments)
        kind = kept[0].kind
        if kind == "text":
            tokenizer.chat_template = None  # whoever asks it sees from this how
        trainer.model.config.update({CONVENTION: "outcome", WHOLE_PROMPT: config.whole_prompt})
        save_trained(trainer, tokenizer, folder)
        if trainer.is_world_process_zero():
            (folder / "README.md").write_text(CARD.format(asked=ASKED[kind]), encoding="utf-8")
        sequences = [
            TokenRow(prompt_ids=(), completion_ids=ids)
            for row in kept
            for ids in (row.chosen_ids, row.rejected_ids)
        ]
        record.metrics |= {
            "rows": len(kept),
            "rows_too_long": len(rows) - len(kept),
            "kind": kind,
            "loss": last_loss(trainer),
        }
        record.training("reward", *training_cost(trainer, sequences))
