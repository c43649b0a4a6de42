"""What keeps fp32 results on a CPU the same whoever shares the batch.

Measured on x86 with torch's CPU kernels: the last bits of a row depend on whether it is among the
rows left over after whole blocks, on the length its keys are padded to, and, with several threads,
on the fused attention's scratch memory. So a batch has a multiple of `BLOCK` rows, all padded to
one length that each would have alone, and attention is plain matrix products. On GPUs none of this
promises anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BLOCK = 16


def padded(length: int) -> int:
    """The next multiple of `BLOCK`."""
    return -(-length // BLOCK) * BLOCK


def use_plain_attention_on_cpu(model: Any) -> None:
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")


def batches_of_one_length(
    lengths: Sequence[int], rows: Sequence[int], max_rows: int
) -> list[list[int]]:
    """Indices of the inputs of each batch, ascending: one padded length, at most `max_rows` rows
    (more only where a single input has more). `rows[i]` is how many rows input i needs."""
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
