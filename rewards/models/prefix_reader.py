"""Reads the beginnings of sequences into a batch's keys and values: kept ones from memory, new ones
through the model.

Legend: A rows of one forward pass, T new tokens per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rewards.models.bit_identity import batches_of_one_length, padded
from rewards.models.kept_prefixes import KeptPrefixes
from rewards.models.row_cache import RowCache, has_equal_bits, row_attention

# (indices of the rows, first new position of each, output of the model for the new positions)
See = Callable[[Sequence[int], Sequence[int], Any], None]


def _see_nothing(rows: Sequence[int], starts: Sequence[int], output: Any) -> None: ...


class PrefixReader:
    """Reads sequences with one model, and keeps `mib` MiB of keys and values (0: none).

    Raises ValueError when prefixes are to be kept with `bit_identical`, but on this machine a kept
    prefix does not give the same bits as one that is computed again.
    """

    def __init__(
        self, model: Any, pad_token_id: int, *, mib: int, bit_identical: bool, max_rows: int
    ) -> None:
        self.model = model
        self.pad_token_id = pad_token_id
        self.bit_identical = bit_identical
        self.max_rows = max_rows
        self.kept = KeptPrefixes(mib) if mib else None
        self.padding_positions = 0  # positions of padding that went through the model
        self.loaded_positions = 0  # positions that were taken from memory
        if mib and bit_identical and model.device.type == "cpu" and not has_equal_bits(model):
            raise ValueError(
                "kept_prefixes_mib is set, but the kernels of this machine do not give kept "
                "prefixes the same bits as computed ones: set it to 0, or bit_identical to false"
            )

    def padded(self, length: int) -> int:
        return padded(length) if self.bit_identical else length

    def known(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        """The entries of each sequence's kept prefix."""
        return [self.kept.find(s) if self.kept else [] for s in sequences]

    def read(
        self,
        sequences: Sequence[Sequence[int]],
        entries: Sequence[Sequence[int]],
        *,
        room: int = 0,
        see: See = _see_nothing,
        **options: Any,
    ) -> RowCache:
        """A cache of one row per sequence, which holds the keys and values of all its tokens and
        has `room` places more. `entries` are those of `known`. `see` gets the output of every
        forward pass."""
        starts = [len(of_row) for of_row in entries]
        new = [len(s) - start for s, start in zip(sequences, starts, strict=True)]
        cache = RowCache(self.model, len(sequences), padded(max(map(len, sequences)) + room))
        if self.kept is not None:
            self.kept.load(cache, entries)
            self.loaded_positions += sum(starts)
        unread = [i for i, length in enumerate(new) if length]
        batches = batches_of_one_length([new[i] for i in unread], [1] * len(unread), self.max_rows)
        for batch in batches:
            rows = [unread[i] for i in batch]
            parts = [sequences[i][starts[i] :] for i in rows]
            length = self.padded(max(map(len, parts)))
            ids_AT = torch.full((len(rows), length), self.pad_token_id, dtype=torch.long)
            for at, part in enumerate(parts):
                ids_AT[at, : len(part)] = torch.tensor(part)
            self.padding_positions += ids_AT.numel() - sum(map(len, parts))
            device = self.model.device
            with row_attention(self.model):
                output = cache.forward(
                    ids_AT.to(device),
                    torch.tensor([starts[i] for i in rows], device=device),
                    max(starts[i] for i in rows) + length,
                    None if len(rows) == len(sequences) else torch.tensor(rows, device=device),
                    **options,
                )
            see(rows, [starts[i] for i in rows], output)
        if self.kept is not None:
            self.kept.keep(cache, [(i, sequences[i]) for i in unread])
        return cache


def shared_beginnings(sequences: Sequence[tuple[str, Sequence[int]]]) -> list[Sequence[int]]:
    """What all sequences with the same name begin with, for every name of several sequences."""
    by_name: dict[str, list[tuple[int, ...]]] = {}
    for name, sequence in sequences:
        by_name.setdefault(name, []).append(tuple(sequence))
    found: list[Sequence[int]] = []
    for group in by_name.values():
        first, last = min(group), max(group)
        length = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), len(first))  # noqa: B905
        if len(group) > 1 and length:
            found.append(first[:length])
    return found
