"""Process reward model: a token-classification model read at every step's last token.

Two classes (0 incorrect, 1 correct); the process reward of a step is P = softmax(logits)[1], the
estimated probability that the solution continued from here ends correct. TRL-trained PRMs and
transformers' own pipelines read the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from data.types import ModelUsage
from rewards.bit_identity import batches_of_one_length, padded, use_plain_attention_on_cpu


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
        self.pad_token_id = pad_token_id
        self.flops = flops
        self.max_rows = max_rows
        self.padding_positions = 0

    @torch.inference_mode()
    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """P(correct) at each step end, in [0, 1], and each sequence's usage, in input order.

        Raises ValueError when a step end lies outside its sequence.
        """
        for sequence, ends in zip(sequences, step_ends, strict=True):
            if not ends or min(ends) < 0 or max(ends) >= len(sequence):
                raise ValueError(
                    f"step_ends is {list(ends)}; each must lie in a sequence of "
                    f"{len(sequence)} tokens, and there must be one"
                )
        scores: list[list[float]] = [[] for _ in sequences]
        lengths = [len(sequence) for sequence in sequences]
        for batch in batches_of_one_length(lengths, [1] * len(lengths), self.max_rows):
            found = self._score_rows([sequences[i] for i in batch], [step_ends[i] for i in batch])
            for i, row in zip(batch, found, strict=True):
                scores[i] = row
        usage = [
            ModelUsage(
                prompt_tokens=len(sequence),
                positions=len(sequence),
                sequences=1,
                flops=self.flops(0, len(sequence)),
            )
            for sequence in sequences
        ]
        return scores, usage

    def _score_rows(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        rows = padded(len(sequences))
        length = padded(max(len(sequence) for sequence in sequences))
        ids_RL = torch.full((rows, length), self.pad_token_id, dtype=torch.long)
        mask_RL = torch.zeros((rows, length), dtype=torch.long)
        mask_RL[:, 0] = 1
        for i, sequence in enumerate(sequences):
            ids_RL[i, : len(sequence)] = torch.tensor(sequence)
            mask_RL[i, : len(sequence)] = 1
        self.padding_positions += rows * length - sum(len(sequence) for sequence in sequences)
        device = self.model.device
        logits_RLC = self.model(
            input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)
        ).logits
        correct_RL = torch.softmax(logits_RLC.float(), dim=-1)[..., 1].cpu()
        return [[float(correct_RL[i, end]) for end in ends] for i, ends in enumerate(step_ends)]
