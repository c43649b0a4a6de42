"""Trains an outcome reward model on preferences with TRL's RewardTrainer (Bradley-Terry loss,
2203.02155, section 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.formats.preferences import preference_row
from data.sources import BadRow, Row, take_in
from data.types import Message
from rewards.models.folders import load_tokenizer
from trainer.training.checkpoints import CheckpointManifest, train_to_the_end

OUTCOME_MODEL_CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [outcome-reward-model, trl, reward-trainer]
---
An outcome reward model, trained on preferences with thinktree over TRL's RewardTrainer.

- Asked with {asked}. The one label's logit is the score of the whole solution.
- sigmoid(score of a - score of b) is the probability that a is preferred to b. The score's level is
  left open by the training: its sigmoid is no share of correct solutions.
- It was trained at the end of solutions alone: what it says of an unfinished one is an
  extrapolation.
- `thinktree_convention` in config.json is "outcome". It loads in plain transformers:

```python
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained(folder)
score = model(input_ids=ids).logits[0, 0]
```
"""
ASKED = {
    "text": "prompt, solution and end token as text",
    "conversation": "the conversation in the tokenizer's chat template, the answer its last turn",
}


@dataclass(frozen=True, kw_only=True)
class PreferenceIds:
    """The token ids of the two whole sequences."""

    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    margin: float | None
    kind: str  # a key of ASKED


def read_preferences(
    sources: Sequence[str], tokenizer: Any
) -> tuple[list[PreferenceIds], list[BadRow]]:
    """The tokenised rows of every source, and the rows that cannot be used, which include
    conversations that the chat template refuses. Raises ValueError if the sources mix text and
    conversations."""
    rows: list[PreferenceIds] = []
    bad: list[BadRow] = []
    for source in sources:
        made, left_out = take_in(source, lambda row, _: _tokenised(row, tokenizer))
        rows += made
        bad += left_out
        if len({row.kind for row in rows}) > 1:
            raise ValueError(
                f"preferences hold text and conversations (up to {source!r}): a model is asked in "
                "one way"
            )
    return rows, bad


def _tokenised(row: Row, tokenizer: Any) -> PreferenceIds:
    preference = preference_row(row)
    chosen, rejected = (
        _text_ids(tokenizer, said) if isinstance(said, str) else _chat_ids(tokenizer, said)
        for said in (preference.chosen, preference.rejected)
    )
    return PreferenceIds(
        chosen_ids=chosen,
        rejected_ids=rejected,
        margin=preference.margin,
        kind="text" if isinstance(preference.chosen, str) else "conversation",
    )


def _text_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    end_token = tokenizer.eos_token or ""
    whole = text.rstrip()
    if not whole.endswith(end_token):
        whole += end_token
    try:
        return tuple(tokenizer(text=whole)["input_ids"])
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ValueError(f"text {text[:80]!r} cannot be encoded: {error}") from error


def _chat_ids(tokenizer: Any, turns: tuple[Message, ...]) -> tuple[int, ...]:
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise ValueError(
            "it is a conversation, but the tokenizer has no chat template; set chat_template_path "
            "to a Jinja file, or to a model with a chat template"
        )
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
    except TemplateError as error:
        raise ValueError(f"the chat template refuses the conversation: {error}") from error
    return tuple(encoded["input_ids"])


def open_scorer(name: str, arguments: Any) -> tuple[Any, Any]:
    """A sequence classifier with one label, and its tokenizer. The tokenizer gets the end token and
    the chat template of `arguments`, because we tokenise the rows before TRL could set these."""
    from transformers import AutoModelForSequenceClassification
    from trl.chat_template_utils import clone_chat_template

    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype="auto")
    tokenizer = load_tokenizer(name)
    if arguments.eos_token is not None:
        tokenizer.eos_token = arguments.eos_token
    template, arguments.chat_template_path = arguments.chat_template_path, None
    if template is not None and Path(template).is_file():
        tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
    elif template is not None:
        model, tokenizer, _ = clone_chat_template(model, tokenizer, template)
    return model, tokenizer


def train_on_preferences(
    model: Any, tokenizer: Any, rows: Sequence[PreferenceIds], arguments: Any
) -> Any:
    """Train in place with TRL's RewardTrainer, and resume from the newest complete checkpoint.
    Raises ValueError if there are no rows, and for a checkpoint from which this run cannot
    continue."""
    from datasets import Dataset
    from trl.trainer.reward_trainer import RewardTrainer

    if not rows:
        raise ValueError("there is no preference to train on")
    columns: dict[str, list[Any]] = {
        "chosen_ids": [row.chosen_ids for row in rows],
        "rejected_ids": [row.rejected_ids for row in rows],
    }
    if any(row.margin is not None for row in rows):
        columns["margin"] = [row.margin or 0.0 for row in rows]
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        callbacks=[CheckpointManifest()],
    )
    train_to_the_end(trainer)
    return trainer
