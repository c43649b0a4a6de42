"""The verifier of Countdown solutions. It follows the solution step by step; nothing is searched
for in its text, so a right answer in a wrong solution counts for nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from data.tasks.countdown import CountdownStep, apply, parse_prompt, parse_step
from data.types import Outcome, Problem, Verdict


@dataclass(frozen=True, kw_only=True)
class CountdownVerifier:
    """Replays a Countdown solution on the multiset of numbers.

    Correct: every step uses two numbers still there, states their true result (division exact,
    result 1 or more) and the true multiset that remains, in any order, and the last step, and no
    earlier one, results in the target. A line that is not a step makes the solution unverifiable,
    whatever stands before it. `max_value`, where given, caps every result.
    """

    max_value: int | None = None

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """Raises ValueError when the problem has no numbers or its answer is not an integer."""
        numbers, target = _numbers_and_target(problem)
        steps: list[CountdownStep] = []
        for i, line in enumerate(solution.split("\n"), start=1):
            step = parse_step(line)
            if step is None:
                return Verdict(
                    outcome=Outcome.UNVERIFIABLE,
                    reason=f"line {i}, {line[:80]!r}, is not of the form 'a op b = c | remaining'",
                )
            steps.append(step)
        available = Counter(numbers)
        for i, step in enumerate(steps, start=1):
            fault = self._apply_step(step, available)
            if fault is None and i < len(steps) and step.result == target:
                fault = f"the target {target} is reached, but more steps follow"
            if fault is not None:
                return Verdict(outcome=Outcome.WRONG, reason=f"step {i}: {fault}")
        if steps[-1].result != target:
            return Verdict(
                outcome=Outcome.WRONG,
                reason=f"the last result is {steps[-1].result}, the target is {target}",
            )
        return Verdict(outcome=Outcome.CORRECT)

    def _apply_step(self, step: CountdownStep, available: Counter[int]) -> str | None:
        """Replace the operands by the result in `available`; what is wrong with it, or None."""
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
        if self.max_value is not None and result > self.max_value:
            return f"{result} is over the largest value allowed, {self.max_value}"
        available[result] += 1
        remaining = sorted(available.elements())
        if sorted(step.remaining) != remaining:
            return f"the remaining numbers are {remaining}, not {sorted(step.remaining)}"
        return None


def _numbers_and_target(problem: Problem) -> tuple[tuple[int, ...], int]:
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
