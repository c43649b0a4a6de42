"""Calibrates a trained reward model on held-out rollouts, so that its scores are probabilities:
P = sigmoid(r / T + b) (rewards/models/calibration.py). The fit uses r itself: if the level of a
pairwise model is far from 0, a float32 probability would lose the information."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from data.flops import flop_model
from data.types import ModelUsage, StepLabels, Usage
from rewards.models.bit_identity import use_plain_attention_on_cpu
from rewards.models.calibration import HIGHEST, write_temperature
from rewards.models.folders import load_reward_model
from rewards.models.position_reader import PositionReader
from trainer.measures.recalibration import fit_scale_and_shift
from trainer.runtime.stage import StageRecord


def calibrate(folder: Path, rows: Sequence[StepLabels], device: Any, record: StageRecord) -> None:
    """Fit T and b on every labelled step of `rows`, and write them to the folder's config.json. A
    label without rollouts counts as one rollout. Raises ValueError if there are no rows, and if the
    scores do not rise with the labels, because then no scale makes them probabilities."""
    if not rows:
        raise ValueError("calibration_labels hold no row to calibrate on")
    margins, usage = step_margins(load_reward_model(str(folder)).to(device), rows)
    labels = [label for row in rows for label in row.labels]
    counts = [max(1, count) for row in rows for count in row.counts]
    correct = [label * count for label, count in zip(labels, counts, strict=True)]
    scale, shift = fit_scale_and_shift(margins, correct, counts)
    if scale < 1 / HIGHEST:
        raise ValueError(
            f"the scores of {folder} do not rise with the labels of calibration_labels (scale "
            f"{scale:.2g}): train longer, or calibrate on the kind of labels used for training"
        )
    write_temperature(folder, 1 / scale, shift)
    record.search(Usage(reward=usage))
    record.metrics |= {"calibration_steps": len(labels), "temperature": 1 / scale, "bias": shift}


def step_margins(model: Any, rows: Sequence[StepLabels]) -> tuple[list[float], ModelUsage]:
    """r, the difference of the two classes' logits, at the end of every step of every row, in
    order; and the cost."""
    use_plain_attention_on_cpu(model.eval())

    def read(
        ids_RL: Tensor, mask_RL: Tensor, step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        logits_RLC = model(
            input_ids=ids_RL.to(model.device), attention_mask=mask_RL.to(model.device)
        ).logits.float()
        margins_RL = (logits_RLC[..., 1] - logits_RLC[..., 0]).cpu()
        return [[float(margins_RL[i, end]) for end in ends] for i, ends in enumerate(step_ends)]

    sequences: list[tuple[int, ...]] = []
    step_ends: list[list[int]] = []
    for row in rows:
        ids, ends = row.prompt_ids, []
        for step in row.completion_ids:
            ids += step
            ends.append(len(ids) - 1)
        sequences.append(ids)
        step_ends.append(ends)
    reader = PositionReader(read, model.config.pad_token_id or 0, flop_model(model).forward)
    scores, usage = reader.score(sequences, step_ends)
    return [score for row in scores for score in row], sum(usage, ModelUsage())
