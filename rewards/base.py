"""The judges of a solution: a verifier of whole solutions, reward models of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from data.types import ModelUsage, Outcome, Problem, SteppedSolution, Verdict


class Verifier(Protocol):
    """Says whether a whole solution is correct. Strict; a malformed solution is not an error."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """`solution` is the text after the prompt, without end token.

        Raises ValueError only for a problem that cannot be judged.
        """
        ...


def verdict_of(verify: Callable[[str], Verdict], solution: str, *, finished: bool) -> Verdict:
    """The verdict on a solution. One that was cut off is unverifiable, so it is not correct,
    whatever its text says so far, and `verify` is not asked."""
    if not finished:
        return Verdict(outcome=Outcome.UNVERIFIABLE, reason="the solution was cut off")
    return verify(solution)


class RewardModel(Protocol):
    """Estimates at each step's end the probability that the solution ends correct."""

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """P(correct), in [0, 1], at each position of `step_ends[i]` in the token ids
        `sequences[i]` (prompt included), and each sequence's usage, in input order.

        Raises ValueError when a step end lies outside its sequence.
        """
        ...


class SolutionTooLong(ValueError):
    """Solutions longer than a reward model's context; `indices` names all of them, `lengths` their
    tokens, `limit` the context in tokens."""

    def __init__(
        self,
        message: str,
        *,
        indices: tuple[int, ...],
        lengths: tuple[int, ...],
        limit: int,
    ) -> None:
        super().__init__(message)
        self.indices = indices
        self.lengths = lengths
        self.limit = limit


class TextRewardModel(Protocol):
    """A reward model with its own tokenizer and convention, asked in text."""

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """P(correct), in [0, 1], one per step of each solution, and each solution's usage, in input
        order. NaN where a model that was to say yes or no said neither.

        Raises ValueError naming the solution for one without steps, SolutionTooLong for those that
        are too long for the model.
        """
        ...


def check_steps(solutions: Sequence[SteppedSolution]) -> None:
    """Raises ValueError naming the first solution without steps."""
    for i, solution in enumerate(solutions):
        if not solution.steps:
            raise ValueError(f"solution {i} (of {solution.prompt[:40]!r}) has no steps")
