"""Verified trajectories out of finished searches: rows for the next policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from data.types import Problem, StopReason, Verdict
from search.base import SearchResult, solution_ids, solution_text


def verified_solutions(
    result: SearchResult, verify: Callable[[Problem, str], Verdict]
) -> tuple[list[tuple[int, ...]], float]:
    """Distinct correct finished solutions (token ids, best scored first) and the share of correct
    ones among the distinct finished solutions (the problem's solve rate in this tree)."""
    finished = [node for node in result.nodes if node.terminal is StopReason.END_OF_SOLUTION]
    seen: dict[str, tuple[int, ...]] = {}
    correct: list[tuple[float, int, tuple[int, ...]]] = []
    for node in finished:
        text = solution_text(result.nodes, node.id)
        if text in seen:
            continue
        seen[text] = solution_ids(result.nodes, node.id)
        if verify(result.problem, text).correct:
            correct.append((-(node.score or 0.0), node.id, seen[text]))
    rate = len(correct) / len(seen) if seen else 0.0
    return [ids for _, _, ids in sorted(correct)], rate


def balance_by_difficulty(
    solutions: Sequence[tuple[int, ...]], solve_rate: float, max_per_problem: int
) -> list[tuple[int, ...]]:
    """Keep fewer solutions of easy problems: ceil((1 - solve rate) x max_per_problem), at least
    one. Without it, problems that every attempt solves crowd out those the policy must learn."""
    keep = max(1, math.ceil((1 - solve_rate) * max_per_problem))
    return list(solutions[:keep])
