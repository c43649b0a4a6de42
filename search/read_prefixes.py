"""The token sequences that a model has read in one search, and how much of a new one it knows.

A causal model computes the same keys and values for a prefix whatever follows it. So a sequence
whose beginning was read before costs only its new positions, if the engine keeps what it computed.
What a search repeats is decided by its own requests alone: it does not depend on other problems, on
the memory of the engine, or on an interruption.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from data.types import ModelUsage


class ReadPrefixes:
    """The sequences that a model has read so far."""

    def __init__(self) -> None:
        # In lexicographic order, so the longest common prefix is that with a neighbour.
        self._read: list[array[int]] = []

    def add(self, sequence: Sequence[int]) -> None:
        ids = array("q", sequence)
        at = bisect_left(self._read, ids)
        if at < len(self._read) and _common(self._read[at], ids) == len(ids):
            return  # the model has read these tokens, and more
        if at > 0 and _common(self._read[at - 1], ids) == len(self._read[at - 1]):
            self._read[at - 1] = ids  # the new sequence continues a known one
            return
        self._read.insert(at, ids)

    def known(self, sequence: Sequence[int]) -> int:
        """The number of tokens at the start of `sequence` that the model has read before."""
        ids = array("q", sequence)
        at = bisect_left(self._read, ids)
        neighbours = self._read[max(0, at - 1) : at + 1]
        return max((_common(other, ids) for other in neighbours), default=0)

    def known_of_batch(self, sequences: Sequence[Sequence[int]]) -> list[int]:
        """`known` of each sequence. A batch reads what all of its sequences have in common once:
        all but the first know this prefix too."""
        if not sequences:
            return []
        shared = common_to_all(sequences)
        return [max(self.known(s), shared if i else 0) for i, s in enumerate(sequences)]


def common_to_all(sequences: Sequence[Sequence[int]]) -> int:
    """The length of the longest prefix of all sequences, of which there must be at least one."""
    ordered = sorted(tuple(sequence) for sequence in sequences)
    return _common(array("q", ordered[0]), array("q", ordered[-1]))


class ScoredEnds:
    """The step ends that a reward model on the policy's trunk has scored. It has the keys and
    values of all that the policy read, but a score at a step's end needs the forward pass of this
    token and of those behind it."""

    def __init__(self) -> None:
        self._scored: set[tuple[int, ...]] = set()  # the sequences up to these ends

    def first_new(self, sequence: Sequence[int], ends: Sequence[int]) -> int:
        """The first of `ends` without a score; the length of `sequence` if all have one."""
        new = (end for end in sorted(ends) if tuple(sequence[: end + 1]) not in self._scored)
        return next(new, len(sequence))

    def add(self, sequence: Sequence[int], ends: Sequence[int]) -> None:
        self._scored.update(tuple(sequence[: end + 1]) for end in ends)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def with_repeats(usage: ModelUsage, known: int, prefix_flops: Callable[[int], float]) -> ModelUsage:
    """The usage of a request whose first `known` positions the model had read before. A model with
    `prefix_flops` 0 keeps nothing, and repeats nothing."""
    flops = prefix_flops(known)
    if flops == 0:
        return usage
    return replace(usage, repeated_positions=known, repeated_flops=flops)
