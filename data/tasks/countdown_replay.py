"""Replay Countdown steps: the first false step, and the first step after which no solution exists.

A solution has two kinds of first errors. A step is false when it uses numbers that are not there or
states something wrong. The text of the steps shows this. A true step may also make the target
impossible. Only the exhaustive solver can show that (data/tasks/countdown_tree.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data.tasks.countdown import CountdownStep, apply, parse_prompt, parse_step
from data.tasks.countdown_tree import can_reach
from data.thoughts import split_solution
from data.types import Problem


def numbers_and_target(problem: Problem) -> tuple[tuple[int, ...], int]:
    """The numbers and the target of a problem. Raises ValueError when the problem has no numbers or
    when its answer is not an integer."""
    numbers = problem.numbers
    if not numbers:
        parsed = parse_prompt(problem.prompt)
        if parsed is None:
            raise ValueError(
                f"problem {problem.id}: numbers is empty and prompt {problem.prompt!r} is not of "
                "the form '3 4 7 12 -> 24\\n'"
            )
        numbers = parsed[0]
    if not (problem.answer.isascii() and problem.answer.isdigit()):
        raise ValueError(f"problem {problem.id}: answer is {problem.answer!r}; it must be digits")
    return numbers, int(problem.answer)


def replay_step(
    step: CountdownStep, available: Counter[int], max_value: int | None = None
) -> str | None:
    """Replace the operands by the result in `available`. Returns the error of the step, or None.
    After an error, `available` is not valid."""
    for operand in (step.left, step.right):
        if available[operand] < 1:
            return f"{operand} is not among the numbers that remain"
        available[operand] -= 1
    result = apply(step.left, step.operator, step.right)
    operation = f"{step.left} {step.operator} {step.right}"
    if result is None:
        return f"{operation} is not a whole number of 1 or more"
    if result != step.result:
        return f"{operation} is {result}, not {step.result}"
    if max_value is not None and result > max_value:
        return f"{result} is over the largest value allowed, {max_value}"
    available[result] += 1
    remaining = sorted(available.elements())
    if sorted(step.remaining) != remaining:
        return f"the remaining numbers are {remaining}, not {sorted(step.remaining)}"
    return None


def first_false_step(problem: Problem, lines: Sequence[str]) -> int:
    """The index of the first wrong line of a whole solution, or -1 when all lines are right.

    `lines` are the steps without newlines. A line is wrong when it is not a step, when it is a
    false step, or when it reaches the target and is not the last line.
    """
    states = _states(problem, lines)
    return len(states) if len(states) < len(lines) else -1


def first_hopeless_step(problem: Problem, lines: Sequence[str], max_value: int | None) -> int:
    """The index of the first line of a whole solution after which no further steps can reach the
    target, or -1 for a correct solution.

    The results of further steps may be at most `max_value`. When a solution stops although the
    target can still be reached, the index is that of its last line.

    Raises ValueError when no steps reach the target from the start.
    """
    numbers, target = numbers_and_target(problem)
    if not can_reach(tuple(sorted(numbers)), target, max_value):
        raise ValueError(f"problem {problem.id}: {problem.prompt!r} has no solution")
    states = _states(problem, lines)
    for index, state in enumerate(states[: len(lines) - 1]):
        if not can_reach(state, target, max_value):
            return index
    if len(states) < len(lines):
        return len(states)
    last = parse_step(lines[-1])
    return -1 if last is not None and last.result == target else len(lines) - 1


def in_reach(problem: Problem, lines: Sequence[str], max_value: int | None) -> bool:
    """Whether further steps can reach the target after `lines`, the first steps of a solution."""
    numbers, target = numbers_and_target(problem)
    states = [tuple(sorted(numbers)), *_states(problem, [*lines, ""])]
    return len(states) == len(lines) + 1 and can_reach(states[-1], target, max_value)


def in_reach_after(problem: Problem, text: str, max_value: int | None) -> bool:
    """`in_reach` after the steps in `text`, the beginning of a solution. What is thought before the
    answer is no step."""
    answer = (split_solution(text).answer or "").removesuffix("\n")
    return in_reach(problem, answer.split("\n") if answer else [], max_value)


def _states(problem: Problem, lines: Sequence[str]) -> list[tuple[int, ...]]:
    """The numbers that remain after each line, sorted, up to the first false line."""
    numbers, target = numbers_and_target(problem)
    available = Counter(numbers)
    states: list[tuple[int, ...]] = []
    for index, line in enumerate(lines):
        step = parse_step(line)
        if step is None or replay_step(step, available) is not None:
            break
        if step.result == target and index < len(lines) - 1:
            break
        states.append(tuple(sorted(available.elements())))
    return states
