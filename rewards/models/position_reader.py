"""Rows of token ids, run through a model in batches and read at chosen positions.

Every reward model over token ids is a `PositionReader` with its own `read`: what it makes of one
padded batch. Batches are cut and padded so that on a CPU a row's result does not depend on its
neighbours (rewards/models/bit_identity.py). Legend: R rows, L padded length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data.progress import BatchProgress
from data.types import ModelUsage
from rewards.models.bit_identity import batches_of_one_length, padded

# (ids_RL, mask_RL, the positions wanted of each of the first rows) -> a number for each of these.
Read = Callable[[Tensor, Tensor, Sequence[Sequence[int]]], list[list[float]]]


def padded_rows(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (R, L), padded on the right; R and L are multiples of 16, and a row
    beyond the sequences attends to its first token alone."""
    rows = padded(len(sequences))
    length = padded(max(len(sequence) for sequence in sequences))
    ids_RL = torch.full((rows, length), pad_token_id, dtype=torch.long)
    mask_RL = torch.zeros((rows, length), dtype=torch.long)
    mask_RL[:, 0] = 1
    for i, sequence in enumerate(sequences):
        ids_RL[i, : len(sequence)] = torch.tensor(sequence)
        mask_RL[i, : len(sequence)] = 1
    return ids_RL, mask_RL


class PositionReader:
    """Implements `rewards.base.RewardModel` over a `read`. `flops(start, end)` counts one
    sequence's forward, `flops_per_read` what reading one position adds to it."""

    def __init__(
        self,
        read: Read,
        pad_token_id: int,
        flops: Callable[[int, int], float],
        *,
        flops_per_read: float = 0.0,
        max_rows: int = 64,
    ) -> None:
        self.read = read
        self.pad_token_id = pad_token_id
        self.flops = flops
        self.flops_per_read = flops_per_read
        self.max_rows = max_rows
        self.padding_positions = 0

    @torch.inference_mode()
    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """What `read` says at each step end and each sequence's usage, in input order.

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
        progress = BatchProgress("scored sequences", len(lengths))
        for batch in batches_of_one_length(lengths, [1] * len(lengths), self.max_rows):
            ids_RL, mask_RL = padded_rows([sequences[i] for i in batch], self.pad_token_id)
            self.padding_positions += ids_RL.numel() - sum(lengths[i] for i in batch)
            found = self.read(ids_RL, mask_RL, [step_ends[i] for i in batch])
            for i, row in zip(batch, found, strict=True):
                scores[i] = row
            progress.add(len(batch), sum(lengths[i] for i in batch))
        usage = [
            ModelUsage(
                prompt_tokens=length,
                positions=length,
                sequences=1,
                flops=self.flops(0, length) + self.flops_per_read * len(ends),
            )
            for length, ends in zip(lengths, step_ends, strict=True)
        ]
        return scores, usage
