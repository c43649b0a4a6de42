"""Exact labels by a task's exhaustive solver: can the problem still be solved after a step?

They need no rollouts, and they do not depend on the policy. So they are the ceiling for labels that
estimate the same from rollouts, and they exist only where a task has a solver.
"""

from __future__ import annotations

from dataclasses import dataclass

from data.tasks.countdown_replay import in_reach_after
from data.types import StepLabels
from search.base import Session
from search.labellers.solutions import (
    Labelled,
    VerifiedRollout,
    distinct,
    finished_labels,
    free_solutions,
    joined,
)

SOLVED = "countdown"  # the verifier of the tasks that have a solver


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """Exact labels: 1 if the problem can still be solved after a step, else 0."""

    solutions: int = 8
    """Free samples per problem; their steps are labelled."""
    tree_max_value: int | None = None
    """Largest result that the exhaustive Countdown solver considers; null: no limit."""

    def __post_init__(self) -> None:
        if self.solutions < 1:
            raise ValueError(f"solutions is {self.solutions}; it must be at least 1")


def check_solver(verifier: str) -> None:
    """Raises ValueError when no solver belongs to the tasks of this verifier."""
    if verifier != SOLVED:
        raise ValueError(
            f"method is 'solver', but verifier is {verifier!r}, whose tasks have no solver; "
            f"it must be {SOLVED!r}"
        )


async def label_by_solver(session: Session, config: SolverConfig) -> Labelled:
    """Label every step of free solutions by the solver, and the last one by the verifier.

    Raises ValueError for a problem that the solver cannot read.
    """
    sampled = await free_solutions(session, config.solutions)
    rows = [_row(session, solution, config.tree_max_value) for solution in distinct(sampled)]
    return finished_labels(session, rows, cut=len(sampled) < config.solutions)


def _row(session: Session, solution: VerifiedRollout, max_value: int | None) -> StepLabels:
    """All labels are exact, so each has the count 1 and the standard error 0."""
    decode, steps = session.engine.decode, solution.steps
    labels = [
        float(in_reach_after(session.problem, decode(joined(steps[:depth])), max_value))
        for depth in range(1, len(steps))
    ]
    return StepLabels(
        problem_id=session.problem.id,
        prompt=session.problem.prompt,
        prompt_ids=session.prompt_ids,
        completions=tuple(map(decode, steps)),
        completion_ids=steps,
        labels=(*labels, float(solution.correct)),
        counts=(1,) * len(steps),
        standard_errors=(0.0,) * len(steps),
    )
