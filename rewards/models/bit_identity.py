"""Batches in which a row's fp32 result on a CPU does not depend on the other rows of the batch.

Measurements on x86 with torch's CPU kernels show that the last bits of a row depend on three
things: whether the row is in the incomplete block after the whole blocks, the length that its keys
are padded to, and, with several threads, the scratch memory of fused attention. So the number of
rows is a multiple of `BLOCK`, all rows have the padded length that each of them would have alone,
and attention uses plain matrix products. rewards/models/row_cache.py needs no common length. On
GPUs, this gives no guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BLOCK = 16


def padded(length: int) -> int:
    """The smallest multiple of `BLOCK` that is at least `length`."""
    return -(-length // BLOCK) * BLOCK


def use_plain_attention_on_cpu(model: Any) -> None:
    """Set the attention of a model on a CPU to plain matrix products."""
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")


def batches_of_one_length(
    lengths: Sequence[int], rows: Sequence[int], max_rows: int
) -> list[list[int]]:
    """Split the inputs into batches. Returns the indices of each batch's inputs, in ascending
    order.

    `rows[i]` is the number of rows that input i needs. The inputs of a batch have the same padded
    length. A batch has at most `max_rows` rows, unless a single input needs more.
    """
    by_length: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_length.setdefault(padded(length), []).append(i)
    batches: list[list[int]] = []
    for _, indices in sorted(by_length.items()):
        total = max_rows
        for i in indices:
            if total + rows[i] > max_rows:
                batches.append([])
                total = 0
            batches[-1].append(i)
            total += rows[i]
    return batches


def batches_by_length(
    lengths: Sequence[int], rows: Sequence[int], max_rows: int
) -> list[list[int]]:
    """Split the inputs into batches of inputs of similar lengths. Returns the indices of each
    batch's inputs. A batch has at most `max_rows` rows, unless a single input needs more."""
    batches: list[list[int]] = []
    total = max_rows
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if total + rows[i] > max_rows:
            batches.append([])
            total = 0
        batches[-1].append(i)
        total += rows[i]
    return batches
