"""What the stage that trains a process reward model leaves behind reads without this project."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForTokenClassification, AutoTokenizer, TrainingArguments

from data.types import StepLabels
from rewards.models.calibration import write_temperature
from rewards.models.opening import open_reward_model
from trainer.models.loading import save_model
from trainer.runtime.config import RuntimeConfig
from trainer.stages.train_prm import RewardModelConfig, run_prm


@pytest.mark.slow
def test_the_card_is_true(tiny_policy: Any, tmp_path: Path) -> None:
    save_model(*tiny_policy, tmp_path / "policy")
    row = StepLabels(
        problem_id="p",
        prompt="",
        prompt_ids=(5, 6, 7),
        completions=("", ""),
        completion_ids=((8, 9), (10, 1)),
        labels=(0.25, 1.0),
        counts=(4, 4),
        standard_errors=(0.1, 0.1),
    )
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.jsonl").write_text(json.dumps(asdict(row)) + "\n")
    out = tmp_path / "prm"
    run_prm(
        RuntimeConfig(output_dir=str(out), seed=1),
        RewardModelConfig(model=str(tmp_path / "policy"), labels=[str(tmp_path / "labels")]),
        TrainingArguments(
            output_dir=str(out), max_steps=1, report_to="none", use_cpu=True, save_strategy="no"
        ),
    )
    card = (out / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["pipeline_tag"] == "token-classification"
    assert json.loads((out / "config.json").read_text())["thinktree_convention"] == "thinktree"
    # The card's own code, at the card's own places, says what search is told.
    write_temperature(out, 2.0, bias=-0.5)
    written = json.loads((out / "config.json").read_text())
    names: dict[str, Any] = {
        "folder": str(out),
        "ids": torch.tensor([[5, 6, 7, 8, 9, 10, 1]]),
        "temperature": written["thinktree_temperature"],
        "bias": written["thinktree_bias"],
    }
    exec(card.split("```python\n")[1].split("```")[0], names)
    loaded = open_reward_model(str(out), "cpu")
    assert loaded.token_model is not None
    [scores], _ = loaded.token_model.score([[5, 6, 7, 8, 9, 10, 1]], [[4, 6]])
    assert scores == pytest.approx(names["scores"][0, [4, 6]].tolist(), abs=1e-5)
    assert AutoTokenizer.from_pretrained(out).decode([8, 9]) == tiny_policy[1].decode([8, 9])
    assert AutoModelForTokenClassification.from_pretrained(out).config.id2label[1] == "correct"
