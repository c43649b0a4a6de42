"""The share of a Countdown problem's tree of legal steps that a search has seen.

A node of the whole tree is a sequence of legal operations. Two operations are the same when they
differ only in the order of their two numbers, or in the choice between equal numbers. A path ends
when it reaches the target or when one number is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from data.tasks.countdown import OPERATORS, apply, parse_step
from data.types import Problem

Move = tuple[int, str, int]  # larger number, operator, smaller number


@lru_cache(maxsize=1 << 16)
def legal_moves(
    numbers: tuple[int, ...], max_value: int | None
) -> dict[Move, tuple[int, tuple[int, ...]]]:
    """Every distinct operation on two of `numbers` (sorted), with its result and the sorted numbers
    that remain after it. A result may be at most `max_value` (None: no limit)."""
    moves: dict[Move, tuple[int, tuple[int, ...]]] = {}
    for i, small in enumerate(numbers):
        for j in range(i + 1, len(numbers)):
            large = numbers[j]
            rest = [number for k, number in enumerate(numbers) if k not in (i, j)]
            for operator in OPERATORS:
                result = apply(large, operator, small)
                if result is not None and (max_value is None or result <= max_value):
                    moves[large, operator, small] = (result, tuple(sorted([*rest, result])))
    return moves


@lru_cache(maxsize=1 << 16)
def tree_size(numbers: tuple[int, ...], target: int, max_value: int | None) -> int:
    """The number of nodes below the root of the whole tree. `numbers` are sorted."""
    size = 0
    for result, remaining in legal_moves(numbers, max_value).values():
        size += 1 if result == target else 1 + tree_size(remaining, target, max_value)
    return size


@lru_cache(maxsize=1 << 18)
def can_reach(numbers: tuple[int, ...], target: int, max_value: int | None) -> bool:
    """Whether one or more legal operations on `numbers` (sorted) reach the target."""
    return any(
        result == target or can_reach(remaining, target, max_value)
        for result, remaining in legal_moves(numbers, max_value).values()
    )


def nodes_seen(problem: Problem, paths: Iterable[str], max_value: int | None) -> int:
    """The number of distinct nodes of the whole tree on `paths`. A path is the text of its steps,
    joined by newlines. It counts up to its first illegal step."""
    target = int(problem.answer)
    seen: set[tuple[Move, ...]] = set()
    for path in paths:
        numbers = tuple(sorted(problem.numbers))
        walked: tuple[Move, ...] = ()
        for line in path.rstrip("\n").split("\n"):
            step = parse_step(line)
            if step is None:
                break
            large, small = max(step.left, step.right), min(step.left, step.right)
            ordered = step.operator in "+*" or step.left == large
            move = (large, step.operator, small)
            result, remaining = legal_moves(numbers, max_value).get(move, (None, ()))
            stated = (step.result, tuple(sorted(step.remaining)))
            if not ordered or stated != (result, remaining):
                break
            walked = (*walked, move)
            seen.add(walked)
            if result == target:
                break
            numbers = remaining
    return len(seen)


def share_seen(problem: Problem, paths: Iterable[str], max_value: int | None) -> float:
    """`nodes_seen` divided by `tree_size`, in [0, 1]. Steps with a result above `max_value` are not
    in the tree. The share is 1 for a tree without nodes."""
    size = tree_size(tuple(sorted(problem.numbers)), int(problem.answer), max_value)
    return nodes_seen(problem, paths, max_value) / size if size else 1.0
