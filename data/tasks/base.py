"""What a task offers: problems in disjoint splits, and worked solutions to start from.

Judging a solution is not here: verifiers live in `rewards`, which may import `data`, not the
other way round.
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

    No group (`Problem.group`) of validation or test occurs in any other split. Demonstrations and
    train are both the training side: they may share groups, never the same problem. `bad_rows` are
    rows of a source that could not be used.
    """

    demonstrations: tuple[Demonstration, ...]
    train: tuple[Problem, ...]
    validation: tuple[Problem, ...]
    test: tuple[Problem, ...]
    bad_rows: tuple[BadRow, ...] = ()


class Task(Protocol):
    """A source of problems. Everything random comes from the seed or generator passed in."""

    @property
    def name(self) -> str: ...

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        """Splits of exactly these sizes (problems), the same for the same seed.

        Raises ValueError when the task holds too few problems.
        """
        ...

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        """A correct solution: the text after the prompt, without end token.

        Raises ValueError when the problem has none.
        """
        ...
