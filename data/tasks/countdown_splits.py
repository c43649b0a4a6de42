"""The Countdown task: splits of problems that are drawn at random. No multiset of numbers is in two
splits, except demonstrations and train."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.progress import BatchProgress, reported
from data.tasks.base import Splits, check_sizes
from data.tasks.countdown import CountdownConfig, demonstrate, make_problem, reachable_targets
from data.types import Demonstration, Problem

MAX_MULTISETS_LOOKED_AT = 200_000  # limits the search when a range has few problems


@dataclass(frozen=True, kw_only=True)
class CountdownTask:
    """Implements `data.tasks.base.Task`."""

    config: CountdownConfig
    name: str = "countdown"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        return make_splits(
            self.config,
            seed,
            demonstrations=demonstrations,
            train=train,
            validation=validation,
            test=test,
        )

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        return demonstrate(problem, rng, max_value=self.config.max_value)


def make_splits(
    config: CountdownConfig,
    seed: int,
    *,
    demonstrations: int,
    train: int,
    validation: int,
    test: int,
) -> Splits:
    """Splits with exactly these sizes. The same config and seed give the same splits.

    Multisets of numbers are drawn uniformly. Each goes to one of three sides: test, validation, or
    training (demonstrations and train). Each multiset gives as few targets as the sizes allow. That
    is one target if there are enough multisets. Raises ValueError when a size is negative or when
    the ranges hold too few problems.
    """
    check_sizes(demonstrations=demonstrations, train=train, validation=validation, test=test)
    sides = _deal(config, seed, [test, validation, demonstrations + train])
    rng = random.Random(f"{seed} order")
    for side in sides:
        rng.shuffle(side)
    test_side, validation_side, training_side = sides
    return Splits(
        demonstrations=tuple(
            Demonstration(
                problem=problem, solution=demonstrate(problem, rng, max_value=config.max_value)
            )
            for problem in reported(training_side[:demonstrations], "demonstrations")
        ),
        train=tuple(training_side[demonstrations:]),
        validation=tuple(validation_side),
        test=tuple(test_side),
    )


def _deal(config: CountdownConfig, seed: int, sizes: Sequence[int]) -> list[list[Problem]]:
    """One list of problems per size. No multiset is in two lists."""
    total = sum(sizes)
    targets = _ShuffledTargets(config, seed, limit=max(MAX_MULTISETS_LOOKED_AT, 10 * total))
    most = config.max_target - config.min_target + 1
    for per_multiset in range(min(most, max(1, -(-total // targets.limit))), most + 1):
        sides = _deal_at_most(per_multiset, targets, sizes)
        if [len(side) for side in sides] == list(sizes):
            return sides
        if targets.count() < total:
            break  # more targets per multiset would not be enough either
    looked_at = "all" if targets.limit == config.num_multisets else f"{targets.limit} of"
    raise ValueError(
        f"demonstrations, train, validation and test ask for {total} problems; {config} holds "
        f"{targets.count()} in {looked_at} {config.num_multisets} multisets of numbers (a multiset "
        "lies on one side only): ask for fewer or widen the ranges"
    )


def _deal_at_most(
    per_multiset: int, targets: _ShuffledTargets, sizes: Sequence[int]
) -> list[list[Problem]]:
    """Fill one side after the other. When there are no more multisets, the last sides stay too
    short."""
    sides: list[list[Problem]] = [[] for _ in sizes]
    multisets = iter(targets)
    batch = BatchProgress("problems", sum(sizes))
    for side, size in zip(sides, sizes, strict=True):
        while len(side) < size:
            drawn = next(multisets, None)
            if drawn is None:
                return sides
            numbers, shuffled = drawn
            chosen = shuffled[: min(per_multiset, size - len(side))]
            side += [make_problem(numbers, target) for target in chosen]
            batch.add(len(chosen))
    return sides


class _ShuffledTargets:
    """Distinct multisets in random order, each with its targets in random order. Every iteration
    gives the same multisets and targets, because the drawn ones are kept."""

    def __init__(self, config: CountdownConfig, seed: int, limit: int) -> None:
        self.limit = min(limit, config.num_multisets)
        self._config = config
        self._rng = random.Random(f"{seed} problems")
        self._known: list[tuple[tuple[int, ...], list[int]]] = []
        self._seen: set[int] = set()
        # Every multiset has an index, so a uniform draw needs no list of all multisets.
        self._order: list[int] | None = None
        if config.num_multisets <= MAX_MULTISETS_LOOKED_AT:
            self._order = self._rng.sample(range(config.num_multisets), config.num_multisets)

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        for i in range(self.limit):
            if i == len(self._known):
                self._known.append(self._draw(i))
            yield self._known[i]

    def count(self) -> int:
        """The number of problems in all multisets up to the limit. This draws all of them."""
        batch = BatchProgress("multisets of numbers", self.limit)
        for _ in self:
            batch.add(1)
        return sum(len(targets) for _, targets in self._known)

    def _draw(self, position: int) -> tuple[tuple[int, ...], list[int]]:
        if self._order is not None:
            index = self._order[position]
        else:
            index = self._rng.randrange(self._config.num_multisets)
            while index in self._seen:
                index = self._rng.randrange(self._config.num_multisets)
            self._seen.add(index)
        numbers = multiset_at(index, self._config)
        targets = reachable_targets(numbers, self._config)
        self._rng.shuffle(targets)
        return numbers, targets


def multiset_at(index: int, config: CountdownConfig) -> tuple[int, ...]:
    """The multiset with this index (0..num_multisets - 1), in ascending order. This is a bijection.

    It uses the combinatorial number system: index = sum of comb(c_i, i) over c_k > ... > c_1 >= 0.
    The numbers are min_number + c_i - (i - 1).
    """
    numbers: list[int] = []
    c = config.max_number - config.min_number + config.num_numbers
    for i in range(config.num_numbers, 0, -1):
        c -= 1
        while math.comb(c, i) > index:
            c -= 1
        index -= math.comb(c, i)
        numbers.append(config.min_number + c - (i - 1))
    return tuple(reversed(numbers))
