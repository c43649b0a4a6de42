"""The interface of a task: problems in disjoint splits, and worked solutions as demonstrations.

A task does not judge solutions. Verifiers are in `rewards`. `rewards` may import `data`, but not
the other way round.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from data.sources import BadRow
from data.types import Demonstration, Problem


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The four sets of problems of a run.

    A group (`Problem.group`) of validation or test is in no other split. Demonstrations and train
    are both used for training. They may share groups, but never the same problem. `bad_rows` are
    the rows of a source that could not be used.
    """

    demonstrations: tuple[Demonstration, ...]
    train: tuple[Problem, ...]
    validation: tuple[Problem, ...]
    test: tuple[Problem, ...]
    bad_rows: tuple[BadRow, ...] = ()


def check_sizes(**sizes: int) -> None:
    """Raises ValueError for a split with a negative size. The message names the split."""
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} is {size}; allowed: 0 or more")


class Task(Protocol):
    """A source of problems. All random choices depend on the given seed or generator alone."""

    @property
    def name(self) -> str: ...

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        """Splits with exactly these numbers of problems. The same seed gives the same splits.

        Raises ValueError when the task has too few problems.
        """
        ...

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        """A correct solution: the text after the prompt, without the end token.

        Raises ValueError when there is no correct solution.
        """
        ...
