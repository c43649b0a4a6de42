"""Heuristic functions that score a partial or finished solution without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from data.tasks.countdown import apply, parse_prompt, parse_step
from data.types import Problem


def countdown_closeness(problem: Problem, text: str) -> float:
    """The score of a Countdown path, in [0, 1].

    The score is 0 when a step is malformed or false. Otherwise it is 1 / (1 + d / target), where d
    is the distance from the target to the nearest number that remains. The target is in the prompt,
    so the score uses no hidden information. Raises ValueError for a prompt that is not a Countdown
    prompt.
    """
    parsed = parse_prompt(problem.prompt)
    if parsed is None:
        raise ValueError(f"problem {problem.id}: {problem.prompt!r} is not a Countdown prompt")
    numbers, target = parsed
    available = Counter(numbers)
    for line in text.rstrip("\n").split("\n") if text else []:
        step = parse_step(line)
        if step is None or apply(step.left, step.operator, step.right) != step.result:
            return 0.0
        for operand in (step.left, step.right):
            if available[operand] < 1:
                return 0.0
            available[operand] -= 1
        available[step.result] += 1
        if sorted(step.remaining) != sorted(available.elements()):
            return 0.0
    distance = min(abs(number - target) for number in available.elements())
    return 1 / (1 + distance / max(1, target))


HEURISTICS: dict[str, Callable[[Problem, str], float]] = {"countdown": countdown_closeness}
