"""Finished searches as training data: rows that TRL's trainers and ours read.

Every row names its problem. Token ids are those that were generated, never re-encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from data.types import Problem, StepLabels, StopReason, Verdict
from search.base import Node, SearchResult, path_to, solution_ids, solution_text
from search.laplace import laplace_error

Verify = Callable[[Problem, str], Verdict]


@dataclass(frozen=True, kw_only=True)
class WeightedRow:
    """A completion and its `weight` in the loss: the rows of one problem sum to at most 1."""

    problem_id: str
    prompt: str
    completion: str
    completion_ids: tuple[int, ...]
    weight: float


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """Two steps after the same `prompt` (problem and steps so far), the first one better:
    TRL's preference columns, and the tree's evidence. As tokens `prompt` is that of
    `problem_prompt` and then `prefix_ids`; a step that ends its solution ends with the end token,
    any other does not, which texts cannot say."""

    problem_id: str
    prompt: str
    chosen: str
    rejected: str
    problem_prompt: str
    prefix_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_value: float
    rejected_value: float
    chosen_visits: int
    rejected_visits: int


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """A problem with the share of correct ones among its tree's distinct finished solutions."""

    problem: Problem
    solve_rate: float
    solutions: int


def verified_solutions(result: SearchResult, verify: Verify) -> tuple[list[tuple[int, ...]], float]:
    """Distinct correct finished solutions (token ids, best scored first) and the share of correct
    ones among the distinct finished solutions (the problem's solve rate in this tree)."""
    seen: dict[str, tuple[int, ...]] = {}
    correct: list[tuple[float, int, tuple[int, ...]]] = []
    for node in finished_solutions(result):
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


def best_paths(results: Iterable[SearchResult], verify: Verify) -> Iterator[WeightedRow]:
    """Each problem's best scored correct solution, where it has one."""
    for result in results:
        correct = [
            node
            for node in finished_solutions(result)
            if verify(result.problem, solution_text(result.nodes, node.id)).correct
        ]
        if correct:
            best = max(correct, key=lambda node: node.score or 0.0)
            yield _row(result, best, 1.0)


def visit_weighted_paths(results: Iterable[SearchResult]) -> Iterator[WeightedRow]:
    """Every finished solution of a tree, weighted by the product of its steps' shares of their
    siblings' visits: the distribution that AlphaZero trains its policy on, over whole paths
    (1712.01815). What ends unfinished keeps its share, so a problem's weights may sum to less
    than 1."""
    for result in results:
        nodes = result.nodes
        for node in finished_solutions(result):
            weight = 1.0
            for step in path_to(nodes, node.id):
                siblings = nodes[nodes[step].parent].children
                total = sum(visits_of(nodes[sibling]) for sibling in siblings)
                inside = step in siblings and total > 0
                weight *= visits_of(nodes[step]) / total if inside else 0.0
            if weight > 0:
                yield _row(result, node, weight)


def step_preferences(
    results: Iterable[SearchResult], *, min_gap: float, min_visits: int
) -> Iterator[PreferenceRow]:
    """Of each node, its best and its worst child, when both have at least `min_visits` visits, or
    the verifier's word, and their mean values are at least `min_gap` apart (step-level preferences,
    2405.00451)."""
    for result in results:
        nodes = result.nodes
        for parent in nodes:
            children = [nodes[child] for child in parent.children]
            children = [c for c in children if visits_of(c) >= min_visits or c.verdict is not None]
            if len(children) < 2:
                continue
            best, worst = max(children, key=value_of), min(children, key=value_of)
            if value_of(best) - value_of(worst) < min_gap:
                continue
            yield PreferenceRow(
                problem_id=result.problem.id,
                prompt=result.problem.prompt + solution_text(nodes, parent.id),
                chosen=best.text,
                rejected=worst.text,
                problem_prompt=result.problem.prompt,
                prefix_ids=solution_ids(nodes, parent.id),
                chosen_ids=best.token_ids,
                rejected_ids=worst.token_ids,
                chosen_value=value_of(best),
                rejected_value=value_of(worst),
                chosen_visits=visits_of(best),
                rejected_visits=visits_of(worst),
            )


def step_value_labels(
    results: Iterable[SearchResult], prompt_ids: Callable[[str], tuple[int, ...]], min_visits: int
) -> Iterator[StepLabels]:
    """Every path from the root to the end of a solution, or to its last step with `min_visits`
    visits, each step labelled with its mean value and visit count (ReST-MCTS*, 2406.03816). The
    standard error takes visits for independent, which those of a tree are not quite:
    sqrt(q(1 - q) / n) under Laplace's rule."""
    for result in results:
        nodes = result.nodes
        in_tree = {child for node in nodes for child in node.children}
        ended = StopReason.END_OF_SOLUTION
        known = {
            node.id
            for node in nodes
            if node.id in in_tree
            and visits_of(node) >= (1 if node.terminal is ended else min_visits)
        }
        ends = [id for id in known if not any(child in known for child in nodes[id].children)]
        for end in sorted(ends):
            path = [nodes[step] for step in path_to(nodes, end)]
            yield StepLabels(
                problem_id=result.problem.id,
                prompt=result.problem.prompt,
                prompt_ids=prompt_ids(result.problem.prompt),
                completions=tuple(n.text for n in path),
                completion_ids=tuple(n.token_ids for n in path),
                labels=tuple(value_of(n) for n in path),
                counts=tuple(visits_of(n) for n in path),
                standard_errors=tuple(laplace_error(value_of(n), visits_of(n)) for n in path),
            )


def by_solve_rate(
    results: Iterable[SearchResult], verify: Verify, *, low: float, high: float
) -> Iterator[RateRow]:
    """Problems whose solve rate lies in [low, high]: neither hopeless nor done, for reinforcement
    learning."""
    for result in results:
        _, rate = verified_solutions(result, verify)
        if low <= rate <= high:
            finished = {solution_text(result.nodes, node.id) for node in finished_solutions(result)}
            yield RateRow(problem=result.problem, solve_rate=rate, solutions=len(finished))


def finished_solutions(result: SearchResult) -> list[Node]:
    return [node for node in result.nodes if node.finished]


def visits_of(node: Node) -> int:
    """A search walks into the end of a solution once, when it values it, and never again: where no
    visit is recorded, its score is one."""
    ended = node.finished and node.score is not None
    return node.visit_count or int(ended)


def value_of(node: Node) -> float:
    """The mean value where there are visits, else the score, 0 where there is none."""
    return node.value_sum / node.visit_count if node.visit_count else node.score or 0.0


def _row(result: SearchResult, node: Node, weight: float) -> WeightedRow:
    return WeightedRow(
        problem_id=result.problem.id,
        prompt=result.problem.prompt,
        completion=solution_text(result.nodes, node.id),
        completion_ids=solution_ids(result.nodes, node.id),
        weight=weight,
    )
