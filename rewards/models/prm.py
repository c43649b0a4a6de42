"""Process reward model: a token-classification model read at every step's last token.

Two classes (0 incorrect, 1 correct); the process reward of a step is P = softmax([l0 / T,
l1 / T + b])[1], the estimated probability that the solution continued from here ends correct. T and
b are the calibration (rewards/models/calibration.py), kept in the model's config, 1 and 0 where it
has none. TRL-trained PRMs and transformers' own pipelines read the same folder (the pipelines at T
= 1 and b = 0)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from data.flops import flop_model
from data.types import ModelUsage
from rewards.models.bit_identity import use_plain_attention_on_cpu
from rewards.models.calibration import bias_of, temperature_of
from rewards.models.position_reader import PositionReader


class ProcessRewardModel:
    """Implements `rewards.base.RewardModel`. `flops(start, end)` counts one sequence's forward."""

    def __init__(
        self,
        model: Any,
        pad_token_id: int,
        flops: Callable[[int, int], float],
        max_rows: int = 512,
    ) -> None:
        if model.config.num_labels != 2:
            raise ValueError(
                f"the reward model has num_labels={model.config.num_labels}; "
                "it must have 2 (incorrect, correct)"
            )
        labels = {int(i): str(name).lower() for i, name in model.config.id2label.items()}
        if labels not in ({0: "incorrect", 1: "correct"}, {0: "label_0", 1: "label_1"}):
            raise ValueError(
                f"the reward model's labels are {labels}; they must be 0: incorrect, 1: correct "
                "(or unnamed, which is read so)"
            )
        self.model = model.eval()
        use_plain_attention_on_cpu(model)
        self.temperature = temperature_of(model.config)
        self.bias = bias_of(model.config)
        self._reader = PositionReader(self._read, pad_token_id, flops, max_rows=max_rows)

    @property
    def padding_positions(self) -> int:
        """Positions run through the model for nothing."""
        return self._reader.padding_positions

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """P(correct) at each step end, in [0, 1], and each sequence's usage, in input order.

        Raises ValueError when a step end lies outside its sequence.
        """
        return self._reader.score(sequences, step_ends)

    def _read(
        self, ids_RL: Tensor, mask_RL: Tensor, step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        device = self.model.device
        logits_RLC = self.model(
            input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)
        ).logits
        scaled_RLC = logits_RLC.float() / self.temperature
        scaled_RLC[..., 1] += self.bias
        correct_RL = torch.softmax(scaled_RLC, dim=-1)[..., 1].cpu()
        return [[float(correct_RL[i, end]) for end in ends] for i, ends in enumerate(step_ends)]


def process_reward_model(model: Any, pad_token_id: int) -> ProcessRewardModel:
    """Wrap a token-classification model, counting its FLOPs from its own sizes."""
    return ProcessRewardModel(model, pad_token_id, flop_model(model).forward)
