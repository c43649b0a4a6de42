"""Turns search results into the inputs of the reward model's metrics: candidates for best of N,
solutions with their first errors, and prefixes with the exhaustive solver's verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from data.process_bench import ProcessBenchRow
from data.tasks.countdown_replay import first_false_step, first_hopeless_step, in_reach_after
from data.types import Problem
from rewards.aggregate import AGGREGATES
from search.base import Node, SearchResult, answer_value, path_to, solution_logprob, solution_text
from search.measurements.prefix_success import successes_of
from trainer.evaluation.policies import auroc_within_problems, checked_score, groups_of
from trainer.measures.best_of_n import Candidate
from trainer.measures.first_errors import NO_ERROR, JudgedSolution
from trainer.measures.results import Solvability
from trainer.measures.score_quality import ScoredPrefix
from trainer.measures.statistics import Estimate, share_estimate

LAST_WEIGHTED = "last_weighted"  # the last score weighted with the policy's likelihood


@dataclass(frozen=True, kw_only=True)
class StepTruths:
    """The facts that a task knows about single steps without a model. Each function in
    `first_errors` returns the index of the first error in the lines of a whole solution, or -1 for
    none. `in_reach` says whether a correct solution can begin with the given text. All these
    functions get the largest allowed result; None: no limit."""

    first_errors: Mapping[str, Callable[[Problem, Sequence[str], int | None], int]]
    in_reach: Callable[[Problem, str, int | None], bool]


TRUTHS = {
    "countdown": StepTruths(
        first_errors={
            "false step": lambda problem, lines, _: first_false_step(problem, lines),
            "target out of reach": first_hopeless_step,
        },
        in_reach=in_reach_after,
    )
}


def ends_of_paths(result: SearchResult) -> list[Node]:
    """Distinct sampled solutions, in the order of their first sample."""
    return [node for node in result.nodes if node.terminal is not None]


def step_scores(result: SearchResult, end: Node) -> tuple[float, ...]:
    """The score of each step. Raises ValueError for a score that is not a number in [0, 1]."""
    return tuple(
        checked_score(result.problem, solution_text(result.nodes, id), result.nodes[id].score)
        for id in path_to(result.nodes, end.id)
    )


def is_correct(end: Node) -> bool:
    """Whether the solution is correct. In a pool only finished solutions have verdicts."""
    return end.verdict is not None and end.verdict.correct


def lines_of(result: SearchResult, end: Node) -> list[str]:
    return [result.nodes[id].text.removesuffix("\n") for id in path_to(result.nodes, end.id)]


def candidates(
    result: SearchResult, aggregate: str, likelihood_weight: float = 0.0
) -> list[Candidate]:
    """A problem's pool as candidates for best of N. As in search, finished solutions rank before
    all others, whatever their scores, and a truncated solution is never correct."""
    found: list[Candidate] = []
    for end in ends_of_paths(result):
        scores = step_scores(result, end)
        proxy = AGGREGATES["last" if aggregate == LAST_WEIGHTED else aggregate](scores)
        value = proxy
        if aggregate == LAST_WEIGHTED:
            value = answer_value(proxy, solution_logprob(result.nodes, end.id), likelihood_weight)
        found.append(
            Candidate(
                rank=(float(end.finished), value),
                proxy=proxy,
                correct=is_correct(end),
                count=end.proposals,
            )
        )
    return found


def step_outcomes(results: Sequence[SearchResult]) -> list[ScoredPrefix]:
    """Every step of every sample, including the last steps. The outcome of the sample is the single
    rollout of each step. This gives the calibration over the steps that the policy takes, as often
    as it takes them."""
    found: list[ScoredPrefix] = []
    for result, group in zip(results, groups_of(r.problem for r in results), strict=True):
        for end in ends_of_paths(result):
            steps = [
                ScoredPrefix(
                    problem=result.problem.id,
                    group=group,
                    score=score,
                    correct=int(is_correct(end)),
                    count=1,
                )
                for score in step_scores(result, end)
            ]
            found += steps * end.proposals
    return found


def judged_solutions(
    results: Sequence[SearchResult],
    truth: Callable[[Problem, Sequence[str], int | None], int],
    task: StepTruths,
    *,
    per_problem: int,
    max_value: int | None,
) -> tuple[list[JudgedSolution], Counter[str]]:
    """The first `per_problem` distinct solutions of each problem with their first errors, and the
    numbers of solutions left out: truncated; of a problem without a solution; wrong, but without an
    error of this kind."""
    found: list[JudgedSolution] = []
    left_out: Counter[str] = Counter()
    for result, group in zip(results, groups_of(r.problem for r in results), strict=True):
        solvable = task.in_reach(result.problem, "", max_value)
        for end in ends_of_paths(result)[:per_problem]:
            correct = is_correct(end)
            if not end.finished:
                left_out["cut off"] += 1
                continue
            if not solvable:
                left_out["of a problem without a solution"] += 1
                continue
            lines = lines_of(result, end)
            label = NO_ERROR if correct else truth(result.problem, lines, max_value)
            if label == NO_ERROR and not correct:
                left_out["wrong without such an error"] += 1
                continue
            scores = step_scores(result, end)
            found.append(JudgedSolution(group=group, scores=scores, label=label))
    return found, left_out


def judged_rows(
    rows: Sequence[ProcessBenchRow], results: Sequence[SearchResult]
) -> tuple[list[JudgedSolution], Counter[str]]:
    """ProcessBench's rows with their scores, in order. Solutions of one problem form a cluster.
    Rows that do not fit into the context are left out."""
    found: list[JudgedSolution] = []
    left_out: Counter[str] = Counter()
    for row, result in zip(rows, results, strict=True):
        ends = ends_of_paths(result)
        if not ends:
            left_out["too long or too short for the model"] += 1
            continue
        scores = step_scores(result, ends[0])
        found.append(JudgedSolution(group=row.problem, scores=scores, label=row.label))
    return found, left_out


def solvability(
    probed: Sequence[SearchResult],
    prefixes: Sequence[ScoredPrefix],
    task: StepTruths,
    max_value: int | None,
    seed: int,
) -> Solvability:
    """Compare scores with the exhaustive solver. `prefixes` are the prefixes of `probed`, in
    order."""
    reach = [
        task.in_reach(result.problem, prefix.text, max_value)
        for result in probed
        for prefix in successes_of(result)
    ]
    auroc, pairs = auroc_within_problems(prefixes, [float(r) for r in reach], seed)

    def mean(kind: bool, value: Callable[[ScoredPrefix], float]) -> Estimate | None:
        chosen = [p for p, r in zip(prefixes, reach, strict=True) if r == kind]
        if not chosen:
            return None
        return share_estimate([value(p) for p in chosen], [p.group for p in chosen])

    return Solvability(
        prefixes=len(prefixes),
        in_reach=sum(reach),
        auroc=auroc,
        pairs=pairs,
        score_in_reach=mean(True, lambda p: p.score),
        score_out_of_reach=mean(False, lambda p: p.score),
        success_in_reach=mean(True, lambda p: p.correct / p.count),
        solved_out_of_reach=sum(
            p.correct > 0 and not r for p, r in zip(prefixes, reach, strict=True)
        ),
    )
