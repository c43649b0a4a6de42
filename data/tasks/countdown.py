"""Countdown: reach a target from a few numbers, with one operation per step.

A prompt is "3 4 7 12 -> 24\n". A solution is a sequence of steps, joined by "\n". A step such as
"7 - 4 = 3 | 3 12 3" has an operation and the numbers that remain: the unused numbers in their
order, then the result. Every number is used at most once, division is exact, and results are
positive. The last step is the step whose result is the target.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from data.types import Problem

# Plain ASCII integers without leading zeros. The limit of the length keeps int() fast.
NUMBER_PATTERN = r"(?:0|[1-9][0-9]{0,17})"
PROMPT_REGEX = re.compile(
    rf"(?P<numbers>{NUMBER_PATTERN}(?: {NUMBER_PATTERN})*) -> (?P<target>{NUMBER_PATTERN})\n"
)
STEP_REGEX = re.compile(
    rf"(?P<left>{NUMBER_PATTERN}) (?P<operator>[-+*/]) (?P<right>{NUMBER_PATTERN})"
    rf" = (?P<result>{NUMBER_PATTERN}) \| (?P<remaining>{NUMBER_PATTERN}(?: {NUMBER_PATTERN})*)"
)
OPERATORS = ("+", "-", "*", "/")


@dataclass(frozen=True, kw_only=True)
class CountdownConfig:
    """Which Countdown problems are made. Every problem has a solution with all results in
    1..max_value.

    Raises ValueError for a value that is not allowed. The message names the field.
    """

    num_numbers: int
    """Numbers per problem, 3 to 6."""
    min_number: int
    """Smallest number in a problem, at least 1."""
    max_number: int
    """Largest number in a problem, at most max_value."""
    max_value: int
    """Largest value of a step's result; it also limits numbers and targets."""
    min_target: int
    """Smallest target, at least 1."""
    max_target: int
    """Largest target, at most max_value."""

    def __post_init__(self) -> None:
        limits = (
            ("num_numbers", self.num_numbers, 3, 6),
            ("min_number", self.min_number, 1, self.max_number),
            ("max_number", self.max_number, self.min_number, self.max_value),
            ("min_target", self.min_target, 1, self.max_target),
            ("max_target", self.max_target, self.min_target, self.max_value),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; allowed: {low} to {high}")

    @property
    def num_multisets(self) -> int:
        """The number of multisets of numbers that the config allows."""
        span = self.max_number - self.min_number + 1
        return math.comb(span + self.num_numbers - 1, self.num_numbers)


@dataclass(frozen=True, kw_only=True)
class CountdownStep:
    """One parsed step, "left operator right = result | remaining". Its arithmetic is not checked
    yet."""

    left: int
    operator: str
    right: int
    result: int
    remaining: tuple[int, ...]


def parse_step(line: str) -> CountdownStep | None:
    """The step in `line` (without newline), or None when the line is not exactly one step."""
    match = STEP_REGEX.fullmatch(line)
    if match is None:
        return None
    return CountdownStep(
        left=int(match["left"]),
        operator=match["operator"],
        right=int(match["right"]),
        result=int(match["result"]),
        remaining=tuple(int(number) for number in match["remaining"].split(" ")),
    )


def parse_prompt(prompt: str) -> tuple[tuple[int, ...], int] | None:
    """(numbers, target) of a Countdown prompt, or None when the text is not exactly one prompt."""
    match = PROMPT_REGEX.fullmatch(prompt)
    if match is None:
        return None
    return tuple(int(number) for number in match["numbers"].split(" ")), int(match["target"])


def group_key(numbers: Sequence[int]) -> str:
    """The multiset of numbers as text. Every order of the same numbers has the same key."""
    return " ".join(str(number) for number in sorted(numbers))


def make_problem(numbers: Sequence[int], target: int) -> Problem:
    """The problem of reaching `target` from `numbers`. Its id consists of the numbers and the
    target."""
    joined = [str(number) for number in numbers]
    return Problem(
        id=f"countdown-{'-'.join(joined)}-to-{target}",
        prompt=f"{' '.join(joined)} -> {target}\n",
        answer=str(target),
        group=group_key(numbers),
        numbers=tuple(numbers),
    )


def apply(left: int, operator: str, right: int) -> int | None:
    """The result, or None when the rules do not allow the operation (inexact division, division by
    zero, a result below 1)."""
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    elif right == 0 or left % right:
        return None
    else:
        result = left // right
    return result if result >= 1 else None


@lru_cache(maxsize=1 << 18)
def _values_of_all(numbers: tuple[int, ...], max_value: int) -> frozenset[int]:
    """The values of all expressions that use each of `numbers` (sorted) once, with every
    intermediate result in 1..max_value."""
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[int] = set()
    # Every split of the numbers into two parts. The last number is always in the second part.
    for mask in range(1, 1 << (len(numbers) - 1)):
        first = tuple(number for i, number in enumerate(numbers) if mask >> i & 1)
        second = tuple(number for i, number in enumerate(numbers) if not mask >> i & 1)
        for a in _values_of_all(first, max_value):
            for b in _values_of_all(second, max_value):
                large, small = (a, b) if a >= b else (b, a)
                values.add(large + small)
                values.add(large * small)
                values.add(large - small)
                if large % small == 0:
                    values.add(large // small)
    return frozenset(value for value in values if 1 <= value <= max_value)


@lru_cache(maxsize=1 << 18)
def _values_with(
    required: tuple[int, ...], optional: tuple[int, ...], max_value: int
) -> frozenset[int]:
    """The values that one or more steps reach with all of `required` and any of `optional`. Both
    are sorted."""
    values: set[int] = set()
    subsets = {
        tuple(number for i, number in enumerate(optional) if mask >> i & 1)
        for mask in range(1 << len(optional))
    }
    for subset in subsets:
        if len(required) + len(subset) >= 2:
            values |= _values_of_all(tuple(sorted(required + subset)), max_value)
    return frozenset(values)


def reachable_targets(numbers: Sequence[int], config: CountdownConfig) -> list[int]:
    """The targets in the config's range that a solution reaches, in ascending order. The given
    numbers are no targets."""
    values = _values_with((), tuple(sorted(numbers)), config.max_value)
    return sorted(
        value for value in values - set(numbers) if config.min_target <= value <= config.max_target
    )


def demonstrate(problem: Problem, rng: random.Random, *, max_value: int) -> str:
    """A random solution that uses every result. Each operation has the larger number first.

    This is a depth-first search over shuffled operations. It enters only states from which the
    target can still be reached. Raises ValueError when no solution keeps every result in
    1..max_value.
    """
    # The given numbers are optional. A result must be used, or its step would be useless.
    numbers = [(number, False) for number in problem.numbers]
    lines = _search(numbers, int(problem.answer), max_value, rng)
    if lines is None:
        raise ValueError(
            f"problem {problem.id}: {problem.prompt!r} has no solution with results up to "
            f"max_value {max_value}"
        )
    return "\n".join(lines)


def _search(
    state: list[tuple[int, bool]], target: int, max_value: int, rng: random.Random
) -> list[str] | None:
    """The lines of steps from `state` to the target, or None. The state holds pairs (number,
    whether it is a result)."""
    moves = [
        (i, j, operator)
        for i in range(len(state))
        for j in range(i + 1, len(state))
        for operator in OPERATORS
    ]
    rng.shuffle(moves)
    for i, j, operator in moves:
        left, right = state[i][0], state[j][0]
        if left < right:
            left, right = right, left
        result = apply(left, operator, right)
        if result is None or result > max_value:
            continue
        rest = [item for k, item in enumerate(state) if k not in (i, j)]
        following = [*rest, (result, True)]
        if result == target:
            below: list[str] | None = None if any(used for _, used in rest) else []
        elif _can_reach(following, target, max_value):
            below = _search(following, target, max_value, rng)
        else:
            below = None
        if below is not None:
            remaining = " ".join(str(number) for number, _ in following)
            return [f"{left} {operator} {right} = {result} | {remaining}", *below]
    return None


def _can_reach(state: list[tuple[int, bool]], target: int, max_value: int) -> bool:
    required = tuple(sorted(number for number, is_result in state if is_result))
    optional = tuple(sorted(number for number, is_result in state if not is_result))
    return target in _values_with(required, optional, max_value)
