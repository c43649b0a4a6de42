"""Run rows of token ids through a model in batches, and read numbers at chosen positions.

Every reward model over token ids is a `PositionReader` with its own function `read`, which turns
one padded batch into scores. The batches are made so that on a CPU a row's result does not depend
on the other rows (rewards/models/bit_identity.py). Legend: R rows, L padded length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data.progress import BatchProgress
from data.types import ModelUsage
from rewards.models.bit_identity import batches_of_one_length, padded

# (ids_RL, mask_RL, the positions to read, per sequence) -> one number per position, per sequence.
# Rows after the last sequence are padding.
Read = Callable[[Tensor, Tensor, Sequence[Sequence[int]]], list[list[float]]]


def padded_rows(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """The ids and the attention mask, both (R, L), padded on the right. R and L are multiples of
    16. A row without a sequence attends to its first token alone."""
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
    """Implements `rewards.base.RewardModel` with a function `read`.

    `flops(start, end)` gives the FLOPs of one sequence's forward pass. `flops_per_read` is the
    additional cost of reading one position.
    """

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

    def prefix_flops(self, length: int) -> float:
        return 0.0

    @torch.inference_mode()
    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Returns the numbers of `read` at each step end and the usage of each sequence, in input
        order.

        Raises ValueError when a sequence has no step end, or one outside the sequence.
        """
        check_step_ends(sequences, step_ends)
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
        return scores, self.usage(lengths, [len(ends) for ends in step_ends])

    def usage(self, lengths: Sequence[int], reads: Sequence[int]) -> list[ModelUsage]:
        """The cost of sequences of these lengths that are read at this many positions."""
        return [
            ModelUsage(
                prompt_tokens=length,
                positions=length,
                sequences=1,
                flops=self.flops(0, length) + self.flops_per_read * read,
            )
            for length, read in zip(lengths, reads, strict=True)
        ]


def check_step_ends(sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]) -> None:
    """Raises ValueError when a sequence has no step end, or one outside the sequence."""
    for sequence, ends in zip(sequences, step_ends, strict=True):
        if not ends or min(ends) < 0 or max(ends) >= len(sequence):
            raise ValueError(
                f"step_ends is {list(ends)}; there must be at least one, and each must be in "
                f"the sequence of {len(sequence)} tokens"
            )
