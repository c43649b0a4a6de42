"""Problems that measure a policy must not be among those that it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from data.tasks.rows import group_of
from data.types import Problem


def problem_key(problem: Problem) -> str:
    """What a held-out problem must not share with a problem of training: the group, or the prompt
    whatever its case and spaces."""
    return problem.group or group_of(problem.prompt)


def check_problems_held_out(held_out: Iterable[Problem], trained: Iterable[Problem]) -> None:
    """Raises ValueError where a problem of `held_out` is one of `trained`."""
    keys = {problem_key(problem) for problem in trained}
    _refuse([problem for problem in held_out if problem_key(problem) in keys])


def check_rows_held_out(
    held_out: Iterable[Problem],
    rows: Iterable[Sequence[int]],
    encode: Callable[[str], Sequence[int]],
) -> None:
    """The same for training rows of token ids, each of which begins with its prompt."""
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
