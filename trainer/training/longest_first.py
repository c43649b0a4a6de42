"""The order in which a trainer takes its rows: the longest rows first, the others shuffled.

A run that needs too much memory then fails in its first minute, not after hours. The longest rows
fill two updates, because Adam's states exist only after the first update. The order depends only on
the seed, the lengths and the rows per update. It does not depend on how the rows of an update are
divided among processes and micro-batches, and a resumed run has the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

UPDATES = 2


class LongestFirst(Sampler[int]):
    """The longest rows of `lengths` fill the first two updates of `rows_per_update` rows. They go
    to the two updates in turn, longest first. The other rows follow in shuffled order. Later epochs
    shuffle all rows."""

    def __init__(self, lengths: Sequence[int], rows_per_update: int, seed: int) -> None:
        self.lengths, self.rows_per_update, self.seed = lengths, rows_per_update, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        if self.epoch == 0:
            place = {row: i for i, row in enumerate(order)}
            longest = sorted(order, key=lambda row: (-self.lengths[row], place[row]))
            longest = longest[: UPDATES * self.rows_per_update]
            first = [row for start in range(UPDATES) for row in longest[start::UPDATES]]
            order = first + sorted(set(order) - set(first), key=place.__getitem__)
        yield from order


def taking_longest_first(trainer_class: type[Any]) -> type[Any]:
    """A subclass of a transformers trainer that takes the rows of its dataset (`input_ids`) in this
    order."""

    class LongestFirstTrainer(trainer_class):
        def _get_train_sampler(self, train_dataset: Any = None) -> LongestFirst:
            rows = self.train_dataset if train_dataset is None else train_dataset
            arguments = self.args
            return LongestFirst(
                [len(ids) for ids in rows["input_ids"]],
                arguments.per_device_train_batch_size
                * arguments.gradient_accumulation_steps
                * arguments.world_size,
                arguments.seed if arguments.data_seed is None else arguments.data_seed,
            )

    return LongestFirstTrainer
