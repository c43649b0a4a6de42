"""Check that the problems that measure a policy are not among its training problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from data.tasks.rows import group_of
from data.types import Problem


def problem_key(problem: Problem) -> str:
    """The key that a held-out problem must not share with a training problem. It is the group, or
    for a problem without a group its prompt without differences in case and spaces."""
    return problem.group or group_of(problem.prompt)


def check_problems_held_out(held_out: Iterable[Problem], trained: Iterable[Problem]) -> None:
    """Raises ValueError when a problem of `held_out` has the same key as one of `trained`."""
    keys = {problem_key(problem) for problem in trained}
    _refuse([problem for problem in held_out if problem_key(problem) in keys])


def check_rows_held_out(
    held_out: Iterable[Problem],
    rows: Iterable[Sequence[int]],
    encode: Callable[[str], Sequence[int]],
) -> None:
    """Raises ValueError when a row of training begins with the prompt of a held-out problem. Rows
    are token ids, and `encode` gives the ids of a prompt."""
    problems = {tuple(encode(problem.prompt)): problem for problem in held_out}
    lengths = {len(ids) for ids in problems}
    begun = {tuple(ids[:length]) for ids in rows for length in lengths}
    _refuse([problem for ids, problem in problems.items() if ids in begun])


def _refuse(shared: Sequence[Problem]) -> None:
    if shared:
        raise ValueError(
            f"{len(shared)} validation problems that measure the policy are among those that it "
            f"is trained on, such as {shared[0].id!r}; use other problems (slice, gate_slice, "
            "evaluation_slice)"
        )
