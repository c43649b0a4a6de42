"""Training rows from finished searches, for TRL's trainers and for those of this project.

Every row names its problem. Token ids are exactly those that were generated. They are never
re-encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from data.types import Problem, StepLabels, StopReason
from rewards.base import Verify
from search.base import Node, SearchResult, path_to, solution_ids, solution_text
from search.laplace import laplace_error


@dataclass(frozen=True, kw_only=True)
class WeightedRow:
    """A completion and its `weight` in the loss. The weights of one problem sum to at most 1."""

    problem_id: str
    prompt: str
    completion: str
    completion_ids: tuple[int, ...]
    weight: float


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """A preference between two steps after the same prefix, with TRL's preference columns and the
    evidence in the tree.

    `prompt` is the text of the problem and of the steps so far. Its tokens are those of
    `problem_prompt`, followed by `prefix_ids`. `chosen_ids` and `rejected_ids` end with the end
    token only if the step ends its solution. The texts do not show this.
    """

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
    """A problem and its solve rate: the share of correct solutions among the distinct finished
    solutions in its tree. `solutions` is the number of these distinct solutions."""

    problem: Problem
    solve_rate: float
    solutions: int


def verified_solutions(result: SearchResult, verify: Verify) -> tuple[list[tuple[int, ...]], float]:
    """The distinct correct finished solutions as token ids, in descending order of score, and the
    problem's solve rate. The solve rate is the share of correct solutions among the distinct
    finished solutions in this tree."""
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
    """Keep the first ceil((1 - solve rate) x max_per_problem) solutions, at least one.

    This keeps fewer solutions of easy problems. Otherwise most of the training data would come from
    problems that the policy solves already.
    """
    keep = max(1, math.ceil((1 - solve_rate) * max_per_problem))
    return list(solutions[:keep])


def best_paths(results: Iterable[SearchResult], verify: Verify) -> Iterator[WeightedRow]:
    """Yield the correct solution with the highest score of each problem that has one."""
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
    """Yield every finished solution of a tree with a weight from the visit counts.

    The share of a step is its visits divided by the visits of all its siblings and itself. The
    weight of a solution is the product of the shares of its steps. This is the distribution that
    AlphaZero trains its policy on, over whole paths (1712.01815). Unfinished paths keep their
    share, so the weights of a problem may sum to less than 1.
    """
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
    """Yield the best and the worst child of each node as a preference (step-level preferences,
    2405.00451).

    Both children must have at least `min_visits` visits or a verdict of the verifier. Their mean
    values must differ by at least `min_gap`.
    """
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
    """Yield every path from the root to the end of a solution, or to its last step with at least
    `min_visits` visits (ReST-MCTS*, 2406.03816).

    The label of a step is its mean value, and its count is its visit count. The standard error is
    sqrt(q(1 - q) / n) by Laplace's rule. It assumes independent visits, which is not quite true in
    a tree.
    """
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
    """Yield the problems whose solve rate lies in [low, high]. Reinforcement learning needs
    problems that the policy solves sometimes, but not always."""
    for result in results:
        _, rate = verified_solutions(result, verify)
        if low <= rate <= high:
            finished = {solution_text(result.nodes, node.id) for node in finished_solutions(result)}
            yield RateRow(problem=result.problem, solve_rate=rate, solutions=len(finished))


def finished_solutions(result: SearchResult) -> list[Node]:
    """The last nodes of all finished solutions, including those of rollouts."""
    return [node for node in result.nodes if node.finished]


def visits_of(node: Node) -> int:
    """The number of visits of a node. The end of a solution that has a score but no recorded visits
    counts as one visit, because a search judges it once and never descends into it again."""
    ended = node.finished and node.score is not None
    return node.visit_count or int(ended)


def value_of(node: Node) -> float:
    """The mean value of a node. Without visits it is the score, or 0 when there is no score."""
    return node.value_sum / node.visit_count if node.visit_count else node.score or 0.0


def _row(result: SearchResult, node: Node, weight: float) -> WeightedRow:
    return WeightedRow(
        problem_id=result.problem.id,
        prompt=result.problem.prompt,
        completion=solution_text(result.nodes, node.id),
        completion_ids=solution_ids(result.nodes, node.id),
        weight=weight,
    )
