"""The interfaces of verifiers, which judge whole solutions, and of reward models, which score
steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from data.types import ModelUsage, Outcome, Problem, SteppedSolution, Verdict

Verify = Callable[[Problem, str], Verdict]  # as `Verifier.verify`
NO_CONTEXT_LIMIT = 2**31  # the context of a model whose config names none


class Verifier(Protocol):
    """Decides strictly whether a whole solution is correct. A malformed solution gets a verdict and
    raises no error."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """The verdict on `solution`, the text after the prompt, without the end token.

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
    """Estimates, at the end of each step, the probability that the whole solution will be
    correct. It reads token ids."""

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Returns the scores and the usage of each sequence, in input order.

        `sequences[i]` holds token ids, including the prompt. Its scores are P(correct), in [0, 1],
        one per position in `step_ends[i]`. Raises ValueError when a step end is outside its
        sequence.
        """
        ...

    def prefix_flops(self, length: int) -> float:
        """The FLOPs of the first `length` positions of a sequence, if the model can keep them for
        later sequences that begin with the same tokens. 0 for a model that always reads whole
        sequences."""
        ...


class SolutionTooLong(ValueError):
    """Some solutions are longer than a reward model's context.

    `indices` are the indices of all of these solutions, `lengths` their numbers of tokens, and
    `limit` is the context in tokens.
    """

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
    """A reward model that reads text. It has its own tokenizer and prompt convention."""

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Returns the scores and the usage of each solution, in input order.

        The scores of a solution are P(correct), in [0, 1], one per step. A score is NaN when the
        model should answer yes or no and answered neither. Raises ValueError for a solution without
        steps, and the message names it. Raises SolutionTooLong when solutions are too long for the
        model.
        """
        ...


def check_steps(solutions: Sequence[SteppedSolution]) -> None:
    """Raises ValueError when a solution has no steps. The message names the first one."""
    for i, solution in enumerate(solutions):
        if not solution.steps:
            raise ValueError(f"solution {i} (of {solution.prompt[:40]!r}) has no steps")
