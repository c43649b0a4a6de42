"""Find questions that are in two splits, or in training data and a test set: exact and near copies.

Exact copies have the same words in the same order. Case, spaces and punctuation do not matter. Two
near copies have a Jaccard similarity of at least a threshold, computed on their sets of runs of
`SHINGLE` words. MinHash with locality-sensitive hashing gives the candidates (Broder 1997;
Leskovec, Rajaraman, Ullman, chapter 3). Their similarity is then computed exactly, so every
reported pair is near.

Some near copies are missed. Of 1,000 planted pairs right at the threshold, at most 6 were missed
for each of the thresholds 0.3, 0.5, 0.7, 0.8 and 0.9 (none at 0.7). Fewer are missed above the
threshold. Thresholds below 0.04 miss more.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.progress import reported

SHINGLE = 3  # words
PERMUTATIONS = 128
MISSED_AT_MOST = 0.01  # share of the pairs at the threshold; very low thresholds miss more
_datasketch: Any = importlib.import_module("datasketch")  # has no type stubs


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A question of one set that is also in another set. `similarity` is 1.0 for the same words."""

    first: str  # the set's name
    first_id: str
    second: str
    second_id: str
    similarity: float

    @property
    def exact(self) -> bool:
        """Whether both questions have the same words in the same order."""
        return self.similarity == 1.0


class QuestionIndex:
    """An index of the questions of one set, which finds the near copies of other questions."""

    def __init__(self, name: str, questions: Mapping[str, str], threshold: float) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"near_duplicate is {threshold}; allowed: above 0, up to 1")
        self.name = name
        self.threshold = threshold
        self.words = {id: normal_words(text) for id, text in questions.items()}
        self._by_words: dict[tuple[str, ...], str] = {}
        for id, words in self.words.items():
            self._by_words.setdefault(words, id)
        self._shingles = {id: shingles(words) for id, words in self.words.items()}
        self._hashes = dict(
            zip(self._shingles, _hashes(list(self._shingles.values())), strict=True)
        )
        self._near: Any = _datasketch.MinHashLSH(
            num_perm=PERMUTATIONS, params=bands_and_rows(threshold)
        )
        for id, hashed in reported(list(self._hashes.items()), f"indexed questions of {name}"):
            self._near.insert(id, hashed)

    def overlaps(self, other: QuestionIndex) -> list[Overlap]:
        """One overlap per question of `other` that has a copy here, with its most similar copy."""
        found: list[Overlap] = []
        compared = f"questions of {other.name} compared with {self.name}"
        for id, words in reported(list(other.words.items()), compared):
            best = self._most_like(words, other._shingles[id], other._hashes[id])
            if best is not None:
                found.append(
                    Overlap(
                        first=self.name,
                        first_id=best[1],
                        second=other.name,
                        second_id=id,
                        similarity=best[0],
                    )
                )
        return found

    def _most_like(
        self, words: tuple[str, ...], own: frozenset[tuple[str, ...]], hashed: Any
    ) -> tuple[float, str] | None:
        if words in self._by_words:
            return 1.0, self._by_words[words]
        near = [
            (similarity, candidate)
            for candidate in sorted(self._near.query(hashed))
            # The similarity 1.0 is reserved for the same words in the same order.
            if (similarity := min(jaccard(own, self._shingles[candidate]), 0.9999))
            >= min(self.threshold, 0.9999)
        ]
        return max(near, default=None)


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """The number of bands and of rows per band for locality-sensitive hashing.

    Longer bands give fewer candidates. The bands are as long as possible, under one condition: a
    pair with the similarity `threshold` is missed with a probability of at most `MISSED_AT_MOST`.
    This probability is (1 - threshold ** rows) ** bands. The default of datasketch gives false
    candidates the same weight as missed pairs, and it missed one pair in five.
    """
    rows = max(
        (
            rows
            for rows in range(1, 17)
            if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISSED_AT_MOST
        ),
        default=1,
    )
    return PERMUTATIONS // rows, rows


def normal_words(text: str) -> tuple[str, ...]:
    """The words and mathematical signs of a text, in lower case, without spaces and punctuation."""
    return tuple(re.findall(r"\w+|[^\w\s.,;:!?'\"]", text.casefold()))


def shingles(words: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """All runs of `SHINGLE` words. A text with fewer words is one run."""
    if len(words) <= SHINGLE:
        return frozenset([words])
    return frozenset(words[i : i + SHINGLE] for i in range(len(words) - SHINGLE + 1))


def jaccard(first: frozenset[Any], second: frozenset[Any]) -> float:
    """The size of the intersection divided by the size of the union. 1.0 for two empty sets."""
    either = len(first | second)
    return len(first & second) / either if either else 1.0


def _hashes(sets: Sequence[frozenset[tuple[str, ...]]]) -> list[Any]:
    encoded = [[" ".join(run).encode() for run in sorted(shingle)] for shingle in sets]
    return _datasketch.MinHash.bulk(encoded, num_perm=PERMUTATIONS)


def cross_overlaps(
    sets: Mapping[str, Mapping[str, str]], held_out: Sequence[str], threshold: float
) -> list[Overlap]:
    """The overlaps between every set in `held_out` and every other set. `sets` maps the name of a
    set to its questions by id. Raises ValueError for a threshold outside (0, 1]."""
    indexes = {name: QuestionIndex(name, questions, threshold) for name, questions in sets.items()}
    found: list[Overlap] = []
    seen: set[frozenset[str]] = set()
    for first in held_out:
        for second in indexes:
            pair = frozenset((first, second))
            if first == second or pair in seen:
                continue
            seen.add(pair)
            found += indexes[first].overlaps(indexes[second])
    return found
