"""What two solutions must share to count as one answer: the unit of a majority vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from data.tasks.countdown import parse_step
from data.thoughts import split_solution
from data.types import Problem, Verdict
from rewards.mathematics.answers import Unreadable, final_answer


def whole_text(problem: Problem, solution: str) -> str:
    """Every text is an answer of its own."""
    del problem
    return solution.strip()


def countdown_operations(problem: Problem, solution: str) -> str:
    """The operations of a solution in a fixed order, the operands of + and * too, so that the same
    calculation is one answer however its steps are ordered. The text itself where it is malformed,
    takes a number that is not there, or does not carry on the numbers that are left: such a
    solution shares no vote with one that does. Whether the arithmetic is right is not looked at. A
    thought before the answer is left out."""
    solution = split_solution(solution).answer or ""
    operations: list[str] = []
    available = Counter(problem.numbers)
    for line in solution.strip().split("\n"):
        step = parse_step(line)
        if step is None:
            return whole_text(problem, solution)
        available.subtract((step.left, step.right))
        if min(available.values()) < 0:
            return whole_text(problem, solution)
        available[step.result] += 1
        if sorted(step.remaining) != sorted(available.elements()):
            return whole_text(problem, solution)
        left, right = step.left, step.right
        if step.operator in "+*" and left > right:
            left, right = right, left
        operations.append(f"{left}{step.operator}{right}={step.result}")
    return ";".join(sorted(operations))


def mathematical_answer(problem: Problem, solution: str) -> str:
    """The final answer as it is written, without spaces; the text where there is none."""
    try:
        return "".join(final_answer(solution).split())
    except Unreadable:
        return whole_text(problem, solution)


class EqualAnswers:
    """Final answers that are equal in mathematics, as one: \\frac{1}{2}, 0.5 and 1/2 share a vote.
    `verify` compares two answers. Of each group the first one seen is the answer of all."""

    def __init__(self, verify: Callable[[Problem, str], Verdict]) -> None:
        self._verify = verify
        self._same: dict[str, dict[str, str]] = {}  # by problem: an answer as written -> its group
        self._first: dict[str, dict[str, str]] = {}  # by problem: a group -> its first answer

    def __call__(self, problem: Problem, solution: str) -> str:
        try:
            answer = final_answer(solution)
        except Unreadable:
            return whole_text(problem, solution)
        written = "".join(answer.split())
        same = self._same.setdefault(problem.id, {})
        first = self._first.setdefault(problem.id, {})
        if written not in same:
            same[written] = next(
                (
                    group
                    for group, known in first.items()
                    if self._verify(replace(problem, answer=known), solution).correct
                ),
                written,
            )
            first.setdefault(same[written], answer)
        return same[written]


# By verifier. Every verifier has a line here; `whole_text` is for answers that are no short text.
FINAL_ANSWERS: dict[str, Callable[[Problem, str], str]] = {
    "countdown": countdown_operations,
    "math": mathematical_answer,
    "code": whole_text,
    "reasoning_gym": whole_text,
    "code_without_isolation": whole_text,
}
