"""This stage trains an outcome reward model on preferences with TRL's RewardTrainer (Bradley-Terry
loss, 2203.02155, section 3.5).

The stage reads and tokenises the rows as TRL does, and gives TRL token ids. An error about a bad
row can then name its file and line. A model trained on conversations gets its inputs in the chat
template. A model trained on text gets the text with the end token after it. White space at the end
of a text is removed in both cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.types import TokenRow
from rewards.models.folders import CONVENTION, WHOLE_PROMPT
from trainer.reward_models.preferences import (
    ASKED,
    OUTCOME_MODEL_CARD,
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
    """The model that an outcome reward model starts from, and the preferences that train it."""

    model: str
    """Language model (its head is then new) or outcome model to start from: folder or hub id."""
    preferences: list[str]
    """Sources (data/sources.py) of rows in TRL's preference format."""
    whole_prompt: bool = False
    """true: the rows hold prompts as the policy gets them. false: they hold bare questions."""
    max_bad_rows: int = 0
    """The stage fails if more rows than this are unusable."""

    def __post_init__(self) -> None:
        if not self.preferences:
            raise ValueError("preferences is empty; it must name at least one source of rows")
        if self.max_bad_rows < 0:
            raise ValueError(f"max_bad_rows is {self.max_bad_rows}; allowed: 0 or more")


def run_preferences(
    runtime: RuntimeConfig, config: OutcomePreferenceConfig, arguments: Any
) -> None:
    """Train an outcome reward model and save it as a Hugging Face folder. `arguments` is TRL's
    RewardConfig. Rows longer than its `max_length`, or than the model's context, are left out (both
    in tokens). An interrupted run continues from its last checkpoint."""
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
            tokenizer.chat_template = None  # tells users of the model to ask it in plain text
        trainer.model.config.update({CONVENTION: "outcome", WHOLE_PROMPT: config.whole_prompt})
        save_trained(trainer, tokenizer, folder)
        if trainer.is_world_process_zero():
            (folder / "README.md").write_text(
                OUTCOME_MODEL_CARD.format(asked=ASKED[kind]), encoding="utf-8"
            )
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
