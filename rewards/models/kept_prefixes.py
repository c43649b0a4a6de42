"""Keys and values of prefixes, kept for later sequences that begin with the same tokens.

The kept tokens form a trie: a token's entry is found by the entry of the token before it. When the
memory is full, the entry that was used least recently goes. Whoever uses an entry uses all entries
before it too, and they count as used later. So the entry that goes is always a leaf.

Legend: N tokens, G heads of keys and values, D head size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewards.models.row_cache import RowCache

ROOT = -1
MIB = 2**20


class KeptPrefixes:
    """Keeps the keys and values of at most `mib` MiB of a model's tokens.

    `numbers` holds one number per entry, for a model that gives one number per position; NaN where
    nobody asked for it yet. Raises ValueError when `mib` has no room for a single token.
    """

    def __init__(self, mib: int) -> None:
        if mib < 1:
            raise ValueError(f"the memory for prefixes is {mib} MiB; it must be at least 1")
        self.mib = mib
        self.capacity = 0  # tokens; known when the first keys and values are kept
        self.numbers: Tensor = torch.empty(0)
        self._entry_of: dict[tuple[int, int], int] = {}  # (entry before, token) -> entry
        self._key_of: OrderedDict[int, tuple[int, int]] = OrderedDict()  # in order of use
        self._free: list[int] = []
        self._keys: list[Tensor] = []  # per layer: (capacity, G, D)
        self._values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._key_of)

    def find(self, sequence: Sequence[int]) -> list[int]:
        """The entries of the longest kept prefix of `sequence`. They count as used now."""
        entries: list[int] = []
        entry = ROOT
        for token in sequence:
            found = self._entry_of.get((entry, token))
            if found is None:
                break
            entries.append(found)
            entry = found
        self._use(entries)
        return entries

    def load(self, cache: RowCache, entries: Sequence[Sequence[int]]) -> None:
        """Put the keys and values of `entries[i]` at the first places of row i of `cache`."""
        rows = [row for row, of_row in enumerate(entries) for _ in of_row]
        if not rows:
            return
        device = self._keys[0].device
        row_N = torch.tensor(rows, device=device)
        place_N = torch.tensor([p for of_row in entries for p in range(len(of_row))], device=device)
        entry_N = torch.tensor([e for of_row in entries for e in of_row], device=device)
        for layer, keys, values in zip(cache.layers, self._keys, self._values, strict=True):
            put: Any = layer
            put.write(row_N, place_N, keys[entry_N], values[entry_N])

    def keep(self, cache: RowCache, rows: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Keep the tokens of each (row of `cache`, its sequence), as far as there is room."""
        if rows and not self._keys:
            self._make(cache)
        new: dict[int, tuple[int, int]] = {}  # entry -> row and place, the last one counts
        for row, sequence in rows:
            entries = self.find(sequence)
            own = set(entries)
            for place in range(len(entries), len(sequence)):
                before = entries[-1] if entries else ROOT
                entry = self._new_entry((before, sequence[place]), own)
                if entry is None:
                    break
                entries.append(entry)
                own.add(entry)
                new[entry] = (row, place)
            self._use(entries)
        if new:
            self._copy(cache, new)

    def _use(self, entries: Sequence[int]) -> None:
        for entry in reversed(entries):
            self._key_of.move_to_end(entry)

    def _new_entry(self, key: tuple[int, int], own: set[int]) -> int | None:
        """An entry for `key`, free or used least recently. None where only `own` are left."""
        if not self._free:
            oldest = next(iter(self._key_of))
            if oldest in own:
                return None
            del self._entry_of[self._key_of.pop(oldest)]
            self._free.append(oldest)
        entry = self._free.pop()
        self._entry_of[key] = entry
        self._key_of[entry] = key
        return entry

    def _make(self, cache: RowCache) -> None:
        layers: list[Any] = list(cache.layers)
        sizes = [(layer.keys[0, :, 0], layer.values[0, :, 0]) for layer in layers]
        per_token = sum(t.numel() * t.element_size() for pair in sizes for t in pair)
        self.capacity = self.mib * MIB // per_token
        if self.capacity < 1:
            raise ValueError(
                f"the memory for prefixes is {self.mib} MiB, but one token of this model needs "
                f"{per_token / MIB:.1f} MiB"
            )
        self._keys = [key.new_empty(self.capacity, *key.shape) for key, _ in sizes]
        self._values = [value.new_empty(self.capacity, *value.shape) for _, value in sizes]
        self._free = list(range(self.capacity - 1, -1, -1))
        self.numbers = torch.empty(self.capacity)

    def _copy(self, cache: RowCache, new: dict[int, tuple[int, int]]) -> None:
        device = self._keys[0].device
        entry_N = torch.tensor(list(new), device=device)
        row_N, place_N = torch.tensor(list(new.values()), device=device).unbind(1)
        self.numbers[list(new)] = torch.nan
        layers: list[Any] = list(cache.layers)
        for layer, keys, values in zip(layers, self._keys, self._values, strict=True):
            keys[entry_N] = layer.keys[row_N, :, place_N]
            values[entry_N] = layer.values[row_N, :, place_N]
