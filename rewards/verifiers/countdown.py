"""The verifier of Countdown solutions. It follows the solution step by step; nothing is searched
for in its text, so a right answer in a wrong solution counts for nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from data.tasks.countdown import CountdownStep, parse_step
from data.tasks.countdown_replay import numbers_and_target, replay_step
from data.thoughts import split_solution
from data.types import Outcome, Problem, Verdict


@dataclass(frozen=True, kw_only=True)
class CountdownVerifier:
    """Replays a Countdown solution on the multiset of numbers.

    Correct: every step uses two numbers still there, states their true result (division exact,
    result 1 or more) and the true multiset that remains, in any order, and the last step, and no
    earlier one, results in the target. A line that is not a step makes the solution unverifiable,
    whatever stands before it; a line break may end the last one. `max_value`, where given, caps
    every result. A thought before the answer is left out, and one that does not end makes the
    solution unverifiable (data/thoughts.py).
    """

    max_value: int | None = None

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """Raises ValueError when the problem has no numbers or its answer is not an integer."""
        numbers, target = numbers_and_target(problem)
        steps: list[CountdownStep] = []
        answer = split_solution(solution).answer
        if answer is None:
            return Verdict(outcome=Outcome.UNVERIFIABLE, reason="the thought does not end")
        text = answer.removesuffix("\n").removesuffix("\r")
        for i, line in enumerate(text.split("\n"), start=1):
            step = parse_step(line)
            if step is None:
                return Verdict(
                    outcome=Outcome.UNVERIFIABLE,
                    reason=f"line {i}, {line[:80]!r}, is not of the form 'a op b = c | remaining'",
                )
            steps.append(step)
        available = Counter(numbers)
        for i, step in enumerate(steps, start=1):
            fault = replay_step(step, available, self.max_value)
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
