"""Measures policies and a reward model on held-out problems: every number in results.json that is
not about training. These functions do not choose or tune anything; tuning uses validation
problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.progress import reported
from data.tasks.countdown_tree import share_seen
from data.types import Problem, Usage, Verdict
from search.answers import choose
from search.base import Node, SearchResult, solution_text
from search.measurements.prefix_success import successes_of
from search.settings import SearchSettings
from search.strategies.solutions import SolutionsConfig
from trainer.measures.results import AccuracyRow, Comparison, PRMQuality
from trainer.measures.score_quality import (
    ScoredPrefix,
    calibration,
    within_problem_auroc,
)
from trainer.measures.statistics import Estimate, accuracy, paired_difference
from trainer.searching.workbench import Workbench, correct_at

WEIGHTED_BEST_OF_N = "best_of_n_weighted"
# Several strategies use the same samples: strategy -> how the answer is chosen (search/answers.py)
READ_FROM_SAMPLES = {"best_of_n": "score", "majority": "majority", "pass_at_n": "oracle"}
TREE_SHARES = {"countdown": share_seen}


def groups_of(problems: Iterable[Problem]) -> list[str]:
    """The cluster of each problem: its group, or else the problem alone."""
    return [problem.group or problem.id for problem in problems]


def compare_accuracies(
    first: Sequence[bool], second: Sequence[bool], metric: str, problems: Sequence[Problem]
) -> Comparison:
    """Compare two lists of outcomes on the same `problems`, in the same order."""
    estimate = paired_difference(first, second, groups_of(problems))
    return Comparison(
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        metric=metric,
    )


def accuracy_row(
    workbench: Workbench,
    policy: str,
    strategy: str,
    results: Sequence[SearchResult],
    budget: int,
) -> AccuracyRow:
    """Measure the answers of a strategy at `budget`."""
    snapshots = [r.at(budget) for r in results]
    verdicts = [
        workbench.verifier.verify(r.problem, s.answer or "")
        for r, s in reported(list(zip(results, snapshots, strict=True)), "checked answers")
    ]
    usage = sum((s.usage for s in snapshots), Usage())
    return _row(
        policy,
        strategy,
        budget,
        accuracy(correct_at(workbench, results, budget), groups_of(r.problem for r in results)),
        usage,
        format_rate=sum(v.well_formed for v in verdicts) / len(verdicts),
        truncation_rate=sum(s.truncated for s in snapshots) / len(snapshots),
    )


def _row(
    policy: str,
    strategy: str,
    budget: int,
    estimate: Estimate,
    usage: Usage,
    *,
    format_rate: float,
    truncation_rate: float,
) -> AccuracyRow:
    n = estimate.n
    return AccuracyRow(
        policy=policy,
        strategy=strategy,
        budget=budget,
        n=n,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        format_rate=format_rate,
        truncation_rate=truncation_rate,
        generated_tokens=usage.policy.generated_tokens / n,
        policy_flops=usage.policy.flops / n,
        reward_flops=usage.reward.flops / n,
        flops=usage.flops / n,
        repeated_flops=usage.repeated_flops / n,
    )


def visited_share(
    verifier: str, results: Sequence[SearchResult], max_value: int | None
) -> float | None:
    """The mean share of the tree of all legal steps that the nodes of the search cover. None if the
    task cannot count this tree."""
    if verifier not in TREE_SHARES:
        return None
    share = TREE_SHARES[verifier]
    shares = [
        share(
            r.problem, [solution_text(r.nodes, n.id) for n in r.nodes if not n.children], max_value
        )
        for r in results
    ]
    return sum(shares) / len(shares)


def evaluate_greedy(
    workbench: Workbench,
    policy: str,
    problems: Sequence[Problem],
    folder: Path,
    max_new_tokens: int,
) -> tuple[AccuracyRow, list[bool]]:
    results = workbench.search(
        problems,
        SolutionsConfig(),
        SearchSettings(answer="first", temperature=0.0, max_new_tokens=max_new_tokens),
        folder=folder,
        name=f"{policy}_greedy",
        policy_name=policy,
        max_concurrent=len(problems),
    )
    return (
        accuracy_row(workbench, policy, "greedy", results, 1),
        correct_at(workbench, results, 1),
    )


def evaluate_sampled(
    workbench: Workbench,
    policy: str,
    problems: Sequence[Problem],
    folder: Path,
    max_new_tokens: int,
) -> AccuracyRow:
    results = workbench.search(
        problems,
        SolutionsConfig(),
        SearchSettings(answer="first", max_new_tokens=max_new_tokens),
        folder=folder,
        name=f"{policy}_sample",
        policy_name=policy,
        max_concurrent=len(problems),
    )
    return accuracy_row(workbench, policy, "sample", results, 1)


def best_of_n_rows(
    workbench: Workbench, policy: str, results: Sequence[SearchResult], budgets: Sequence[int]
) -> list[AccuracyRow]:
    """Four rows per N from nested subsets of the same samples: best of N by process reward weighted
    with the policy's likelihood (`search.base.answer_value`, as in the search), best of N by
    process reward alone, majority, and pass@N (the oracle). Only the first two include the cost of
    the reward model."""
    rows = [accuracy_row(workbench, policy, WEIGHTED_BEST_OF_N, results, n) for n in budgets]
    verdicts = [
        {
            node.id: workbench.verifier.verify(r.problem, solution_text(r.nodes, node.id))
            for node in r.nodes[1:]
        }
        for r in reported(results, "problems whose solutions are checked")
    ]
    for weighted in list(rows):
        chosen: dict[str, list[tuple[Node, Verdict]]] = {key: [] for key in READ_FROM_SAMPLES}
        for result, verdict in zip(results, verdicts, strict=True):
            texts = {node.text: verdict[node.id].correct for node in result.nodes[1:]}
            for strategy, answer in READ_FROM_SAMPLES.items():
                id = choose(
                    result.nodes,
                    range(1, weighted.budget + 1),
                    answer=answer,
                    final_answer=partial(workbench.final_answer, result.problem),
                    correct=texts.__getitem__,
                )
                chosen[strategy].append((result.nodes[id], verdict[id]))
        for strategy, answers in chosen.items():
            cut = [not node.finished for node, _ in answers]
            correct = [v.correct and not c for (_, v), c in zip(answers, cut, strict=True)]
            estimate = accuracy(correct, groups_of(r.problem for r in results))
            reward_flops = weighted.reward_flops if strategy == "best_of_n" else 0.0
            rows.append(
                replace(
                    weighted,
                    strategy=strategy,
                    value=estimate.value,
                    low=estimate.low,
                    high=estimate.high,
                    format_rate=sum(v.well_formed for _, v in answers) / len(answers),
                    truncation_rate=sum(cut) / len(answers),
                    reward_flops=reward_flops,
                    flops=weighted.policy_flops + reward_flops,
                    # All samples are of one round, so only the reward model repeats prefixes.
                    repeated_flops=weighted.repeated_flops if strategy == "best_of_n" else 0.0,
                )
            )
    return rows


def scored_prefixes(probed: Sequence[SearchResult]) -> list[ScoredPrefix]:
    """The prefixes from `search.measurements.prefix_success`. Raises ValueError for a score that is
    not a number in [0, 1]."""
    found: list[ScoredPrefix] = []
    for result, group in zip(probed, groups_of(r.problem for r in probed), strict=True):
        for prefix in successes_of(result):
            found.append(
                ScoredPrefix(
                    problem=result.problem.id,
                    group=group,
                    score=checked_score(result.problem, prefix.text, prefix.score),
                    correct=prefix.correct,
                    count=prefix.rollouts,
                )
            )
    return found


def checked_score(problem: Problem, text: str, score: float | None) -> float:
    """The score. Raises ValueError if it is not a number in [0, 1]."""
    if score is None or not 0 <= score <= 1:
        raise ValueError(
            f"problem {problem.id}: the reward model's score of {text!r} is {score}; it must be a "
            "number in [0, 1]"
        )
    return score


def auroc_within_problems(
    prefixes: Sequence[ScoredPrefix], truths: Sequence[float], seed: int
) -> tuple[Estimate | None, int]:
    """`within_problem_auroc` of the prefixes' scores for `truths`, with one truth per prefix."""
    problems: dict[str, list[tuple[float, float]]] = {}
    for prefix, truth in zip(prefixes, truths, strict=True):
        problems.setdefault(prefix.problem, []).append((prefix.score, truth))
    groups = {p.problem: p.group for p in prefixes}
    return within_problem_auroc(list(problems.values()), [groups[p] for p in problems], seed)


def prm_quality(probed: Sequence[SearchResult], rollouts: int, seed: int) -> PRMQuality | None:
    """The reward model's scores compared with success rates of `rollouts` (2 or more) completions
    from non-terminal steps. Pairs are compared within a problem. None if no solution has a
    non-terminal step. Raises ValueError for a score that is not a number in [0, 1]."""
    prefixes = scored_prefixes(probed)
    if not prefixes:
        return None
    auroc, pairs = auroc_within_problems(prefixes, [p.correct / p.count for p in prefixes], seed)
    found = calibration(prefixes, seed)
    return PRMQuality(
        auroc=auroc.value if auroc else None,
        auroc_low=auroc.low if auroc else None,
        auroc_high=auroc.high if auroc else None,
        pairs=pairs,
        brier_skill=found.brier_skill.value if found.brier_skill else None,
        calibration_error=found.calibration_error.value,
        prefixes=len(prefixes),
        rollouts_per_prefix=rollouts,
        reliability=found.bins,
    )
