"""Process reward model: a token-classification model that is read at the last token of every step.

It has two classes (0 incorrect, 1 correct). The process reward of a step is P = softmax([l0 / T,
l1 / T + b])[1]. This is the estimated probability that the solution will be correct when it
continues from here. T and b are the calibration (rewards/models/calibration.py) in the model's
config. Without calibration, T = 1 and b = 0. The same code reads PRMs trained by TRL. transformers'
own pipelines read the same folder, with T = 1 and b = 0.
"""

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
    """Implements `rewards.base.RewardModel`. `flops(start, end)` gives the FLOPs of one sequence's
    forward pass. Raises ValueError when the model does not have the two classes."""

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
                "(or have no names, which means the same)"
            )
        self.model = model.eval()
        use_plain_attention_on_cpu(model)
        self.temperature = temperature_of(model.config)
        self.bias = bias_of(model.config)
        self._reader = PositionReader(self._read, pad_token_id, flops, max_rows=max_rows)

    @property
    def padding_positions(self) -> int:
        """The number of padding positions that went through the model."""
        return self._reader.padding_positions

    def prefix_flops(self, length: int) -> float:
        return self._reader.flops(0, length)

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Returns P(correct) at each step end, in [0, 1], and the usage of each sequence, in input
        order.

        Raises ValueError when a sequence has no step end, or one outside the sequence.
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
    """A process reward model from a token-classification model. Its FLOPs follow from the sizes of
    the model."""
    return ProcessRewardModel(model, pad_token_id, flop_model(model).forward)
