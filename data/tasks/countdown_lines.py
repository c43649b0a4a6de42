"""The lines of a Countdown thought, and an exact reader that replays them.

| line | behaviour | meaning |
|---|---|---|
| `numbers 3 4 7 12 target 24` | analysis | the numbers and the target of the problem |
| `goal 2 \\| 24 = 12 * 2` | decomposition | 2 is worth making: with 12 it gives the target |
| `try 7 - 4 = 3 \\| 3 12 3` | completion | the first operation on these numbers |
| `instead 12 * 3 = 36 \\| 4 7 36` | completion, alternative | another operation on them |
| `check 3 < 24` | evaluation | the result beside the target |
| `spent back 3 4 7 12` | correction | one number is left, so go back to these numbers |
| `tried back 3 4 7 12` | correction | every way worth a try was tried, so go back |
| `far back 3 4 7 12` | correction | other numbers look nearer to the target, so go back to them |

`try` and `instead` are followed by a step of the answer's form, so `parse_step` reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data.tasks.countdown import NUMBER_PATTERN, CountdownStep, apply, parse_step
from data.tasks.countdown_replay import numbers_and_target, replay_step
from data.thoughts import THOUGHT_END, THOUGHT_START
from data.types import Problem

BEHAVIOURS = (
    "analysis", "decomposition", "completion", "alternative", "evaluation", "correction",
)  # fmt: skip
REASONS = ("spent", "tried", "far")  # why a thought goes back
WAIT = "Wait"  # the cue that makes a thought go on; it is no behaviour
WORDS = (
    "numbers", "target", "goal", "try", "instead", "check", "<", ">", *REASONS, "back",
    WAIT, "<think>", "</think>",
)  # fmt: skip
_NUMBERS = rf"{NUMBER_PATTERN}(?: {NUMBER_PATTERN})*"
_ANALYSIS = re.compile(rf"numbers (?P<numbers>{_NUMBERS}) target (?P<target>{NUMBER_PATTERN})")
_GOAL = re.compile(
    rf"goal (?P<goal>{NUMBER_PATTERN}) \| (?P<target>{NUMBER_PATTERN}) = "
    rf"(?P<left>{NUMBER_PATTERN}) (?P<operator>[-+*/]) (?P<right>{NUMBER_PATTERN})"
)
_CHECK = re.compile(
    rf"check (?P<result>{NUMBER_PATTERN}) (?P<sign>[<=>]) (?P<target>{NUMBER_PATTERN})"
)
_BACK = re.compile(rf"(?P<reason>{'|'.join(REASONS)}) back (?P<numbers>{_NUMBERS})")


def joined_numbers(numbers: Sequence[int]) -> str:
    return " ".join(str(number) for number in numbers)


def step_line(left: int, operator: str, right: int, result: int, rest: Sequence[int]) -> str:
    """A step: `rest` are the numbers that remain after it, with the result at the end."""
    return f"{left} {operator} {right} = {result} | {joined_numbers(rest)}"


def check_line(result: int, target: int) -> str:
    sign = "<" if result < target else ">" if result > target else "="
    return f"check {result} {sign} {target}"


@dataclass(frozen=True, kw_only=True)
class ReadLine:
    """A line of a thought. `behaviours` are empty for a line of no known form. `fault` says why the
    line is false, or is None."""

    text: str
    behaviours: tuple[str, ...]
    fault: str | None


def read_thought(problem: Problem, thought: str) -> list[ReadLine]:
    """Replay the lines of a thought, without the tags. Blank lines are left out.

    A step is an alternative when an earlier step of the thought went on from the same numbers,
    whatever word stands before it. Going on from a false step is not a fault again. Raises
    ValueError when the problem has no numbers or when its answer is not an integer.
    """
    reader = _Reader(problem)
    return [reader.read(line) for line in thought.splitlines() if line.strip()]


def false_steps(problem: Problem, steps: Sequence[str]) -> list[bool]:
    """For each step of a solution, whether it is a false line of its thought. A step is a line.
    Steps outside the thought are never false here; the verifier judges the answer. Raises
    ValueError as `read_thought` does."""
    reader, inside, found = _Reader(problem), False, list[bool]()
    for step in steps:
        line = step.strip()
        if line in (THOUGHT_START, THOUGHT_END) or not (inside and line):
            inside = line == THOUGHT_START or (inside and line != THOUGHT_END)
            found.append(False)
        else:
            found.append(reader.read(line).fault is not None)
    return found


class _Reader:
    """Replays lines. `seen` are the sorted numbers that the thought has reached, and `gone_on` are
    those from which a step has gone on."""

    def __init__(self, problem: Problem) -> None:
        numbers, self.target = numbers_and_target(problem)
        self.start = self.at = tuple(sorted(numbers))
        self.seen = {self.start}
        self.gone_on: set[tuple[int, ...]] = set()
        self.result: int | None = None

    def read(self, line: str) -> ReadLine:
        behaviours, fault = self._read(line.strip())
        return ReadLine(text=line, behaviours=behaviours, fault=fault)

    def _read(self, line: str) -> tuple[tuple[str, ...], str | None]:
        first, _, rest = line.partition(" ")
        step = parse_step(rest) if first in ("try", "instead") else None
        if step is not None:
            return self._step(step)
        if match := _ANALYSIS.fullmatch(line):
            said = (_sorted(match["numbers"]), int(match["target"]))
            true = said == (self.start, self.target)
            return ("analysis",), None if true else "these are not the problem's numbers and target"
        if match := _GOAL.fullmatch(line):
            return ("decomposition",), self._goal(match)
        if match := _CHECK.fullmatch(line):
            result, target = int(match["result"]), int(match["target"])
            true = line == check_line(result, self.target) and target == self.target
            of_step = result == self.result
            return ("evaluation",), None if true and of_step else "this does not compare the result"
        if match := _BACK.fullmatch(line):
            return ("correction",), self._back(match["reason"], _sorted(match["numbers"]))
        return (), None if line == WAIT else "this is not a line of a thought"

    def _step(self, step: CountdownStep) -> tuple[tuple[str, ...], str | None]:
        counts = Counter(step.remaining)
        counts[step.result] -= 1
        counts.update((step.left, step.right))
        origin = tuple(sorted(counts.elements()))
        fault = replay_step(step, Counter(origin))
        if fault is None and origin not in self.seen:
            fault = f"{joined_numbers(origin)} were not reached before"
        alternative = origin in self.gone_on
        self.gone_on.add(origin)
        self.at, self.result = tuple(sorted(step.remaining)), step.result
        self.seen.add(self.at)
        return ("completion", "alternative") if alternative else ("completion",), fault

    def _goal(self, match: re.Match[str]) -> str | None:
        goal, left, right = int(match["goal"]), int(match["left"]), int(match["right"])
        if int(match["target"]) != self.target:
            return f"the target is {self.target}"
        if apply(left, match["operator"], right) != self.target:
            return f"{left} {match['operator']} {right} is not {self.target}"
        other = right if goal == left else left
        if goal not in (left, right) or other not in self.at:
            return f"{other} is not among the numbers that remain"
        return None

    def _back(self, reason: str, numbers: tuple[int, ...]) -> str | None:
        if numbers not in self.seen:
            return f"{joined_numbers(numbers)} were not reached before"
        spent = len(self.at) == 1
        left = self.at
        self.at = numbers
        if reason == "spent" and not spent:
            return f"more than one number is left: {joined_numbers(left)}"
        if reason == "tried" and left not in self.gone_on:
            return f"nothing was tried from {joined_numbers(left)}"
        return None


def _sorted(numbers: str) -> tuple[int, ...]:
    return tuple(sorted(int(number) for number in numbers.split(" ")))
