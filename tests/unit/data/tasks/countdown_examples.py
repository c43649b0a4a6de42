"""Ranges of Countdown problems, and their results by brute force."""

from __future__ import annotations

import itertools

from data.tasks.countdown import CountdownConfig

CONFIG = CountdownConfig(
    num_numbers=4, min_number=1, max_number=15, max_value=40, min_target=10, max_target=40
)
SMALL = CountdownConfig(
    num_numbers=3, min_number=1, max_number=3, max_value=6, min_target=4, max_target=6
)


def brute_force(numbers: tuple[int, ...], max_value: int) -> set[int]:
    """Every result of every sequence of steps, written apart from the code under test."""
    results: set[int] = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(number for k, number in enumerate(numbers) if k not in (i, j))
        candidates = [a + b, a - b, a * b] + ([a // b] if a % b == 0 else [])
        for c in candidates:
            if 1 <= c <= max_value:
                results.add(c)
                results |= brute_force((*rest, c), max_value)
    return results
