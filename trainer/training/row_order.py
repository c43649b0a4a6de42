"""The order in which a trainer takes its rows.

Longest rows first: a run that needs too much memory then fails in its first minute, not after
hours. The longest rows fill two updates, because Adam's states exist only after the first update.

Sorted updates: the rows of each update are sorted by length, so that the micro-batches of an update
hold rows of like length, with little padding. Which rows an update has stays as it was, so the
gradient stays the same up to rounding.

The order depends only on the seed, the lengths and the rows per update. It does not depend on how
the rows of an update are divided among processes and micro-batches, and a resumed run has the same
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler

UPDATES = 2


@dataclass(frozen=True, kw_only=True)
class RowOrder:
    """Which of the two orders a trainer uses. With neither, rows are shuffled by the trainer."""

    longest_first: bool = True
    sorted_updates: bool = False


LONGEST_FIRST = RowOrder()
SHUFFLED = RowOrder(longest_first=False)


class OrderedRows(Sampler[int]):
    """Rows of `lengths` in an order, shuffled otherwise. The longest ones fill the first two
    updates of `rows_per_update` rows: they go to the two updates in turn, longest first. Later
    epochs shuffle all rows."""

    def __init__(
        self, lengths: Sequence[int], rows_per_update: int, seed: int, order: RowOrder
    ) -> None:
        self.lengths, self.rows_per_update, self.seed = lengths, rows_per_update, seed
        self.order = order
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.rows_per_update
        if self.epoch == 0 and self.order.longest_first:
            place = {row: i for i, row in enumerate(order)}
            longest = sorted(order, key=lambda row: (-self.lengths[row], place[row]))
            longest = longest[: UPDATES * size]
            first = [row for start in range(UPDATES) for row in longest[start::UPDATES]]
            order = first + sorted(set(order) - set(first), key=place.__getitem__)
        if self.order.sorted_updates:
            updates = (order[start : start + size] for start in range(0, len(order), size))
            order = [
                row
                for update in updates
                for row in sorted(update, key=lambda row: -self.lengths[row])
            ]
        yield from order


def in_order(trainer_class: type[Any], order: RowOrder) -> type[Any]:
    """A subclass of a transformers trainer that takes the rows of its dataset (`input_ids`) in this
    order; the trainer itself without one."""
    if order == SHUFFLED:
        return trainer_class

    class OrderedTrainer(trainer_class):
        def _get_train_sampler(self, train_dataset: Any = None) -> OrderedRows:
            rows = self.train_dataset if train_dataset is None else train_dataset
            arguments = self.args
            return OrderedRows(
                [len(ids) for ids in rows["input_ids"]],
                arguments.per_device_train_batch_size
                * arguments.gradient_accumulation_steps
                * arguments.world_size,
                arguments.seed if arguments.data_seed is None else arguments.data_seed,
                order,
            )

    return OrderedTrainer
