"""AUROC of a reward model's scores by depth, for two truths about a prefix of a solution.

- reach: the problem can still be solved from here. The exhaustive solver says so exactly, where the
  task has one. Elsewhere it is an estimate: at least one of the prefix's rollouts is correct.
- success: how often the policy succeeds from here, as a share of completions. Pairs of prefixes
  with different shares are compared.

A finished solution is in reach, and a success, if the verifier accepts it. All pairs are pairs of
one problem, because a search compares prefixes of one problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.types import Problem
from search.base import SearchResult, path_to, solution_ids, solution_text
from search.measurements.prefix_success import successes_of
from trainer.evaluation.policies import (
    auroc_within_problems,
    checked_score,
    groups_of,
    scored_prefixes,
)
from trainer.evaluation.reward_model_samples import StepTruths, ends_of_paths, is_correct
from trainer.measures.results import AurocRow
from trainer.measures.score_quality import ScoredPrefix

SOLVER = "exhaustive solver"
VERDICT = "verdict"
SAMPLES = 16  # finished solutions per problem at most


@dataclass(frozen=True, kw_only=True)
class DepthPrefix:
    """An unfinished prefix: the first `depth` steps of a solution, as `text`. `scored` holds its
    score and the outcomes of its completions."""

    problem: Problem
    text: str
    depth: int
    scored: ScoredPrefix

    @property
    def success(self) -> float:
        return self.scored.correct / self.scored.count


def probed_prefixes(
    probed: Sequence[SearchResult], step_ends: Callable[[Sequence[int]], Sequence[int]]
) -> list[DepthPrefix]:
    """The prefixes from `search.measurements.prefix_success`, with their rollouts. `step_ends`
    gives the positions at which the steps of token ids end."""
    found = [(result.problem, prefix) for result in probed for prefix in successes_of(result)]
    return [
        DepthPrefix(
            problem=problem, text=prefix.text, depth=len(step_ends(prefix.token_ids)), scored=scored
        )
        for (problem, prefix), scored in zip(found, scored_prefixes(probed), strict=True)
    ]


def pooled_prefixes(few: Sequence[SearchResult], many: Sequence[SearchResult]) -> list[DepthPrefix]:
    """The distinct unfinished prefixes of the pools `few`, with the outcomes of all samples of the
    pools `many` that pass them. `many` holds the samples of `few` and further ones. A prefix that
    it lacks (few samples, or a device whose samples differ in their last bits) has the outcomes of
    `few`."""
    found: list[DepthPrefix] = []
    groups = groups_of(pool.problem for pool in few)
    for small, large, group in zip(few, many, groups, strict=True):
        outcomes = _outcomes(small) | _outcomes(large)
        for node in small.nodes[1:]:
            if node.terminal is not None:
                continue
            text = solution_text(small.nodes, node.id)
            correct, count = outcomes[solution_ids(small.nodes, node.id)]
            scored = ScoredPrefix(
                problem=small.problem.id,
                group=group,
                score=checked_score(small.problem, text, node.score),
                correct=correct,
                count=count,
            )
            depth = len(path_to(small.nodes, node.id))
            found.append(DepthPrefix(problem=small.problem, text=text, depth=depth, scored=scored))
    return found


def _outcomes(pool: SearchResult) -> dict[tuple[int, ...], tuple[int, int]]:
    """For each prefix of a pool, by its token ids: how many samples that pass it are correct, and
    how many pass it."""
    correct: Counter[tuple[int, ...]] = Counter()
    count: Counter[tuple[int, ...]] = Counter()
    for end in ends_of_paths(pool):
        for id in path_to(pool.nodes, end.id):
            ids = solution_ids(pool.nodes, id)
            count[ids] += end.proposals
            correct[ids] += end.proposals * is_correct(end)
    return {ids: (correct[ids], n) for ids, n in count.items()}


def pooled_solutions(pools: Sequence[SearchResult]) -> list[ScoredPrefix]:
    """The distinct finished solutions of pools, each with its verdict as its only outcome."""
    found: list[ScoredPrefix] = []
    for pool, group in zip(pools, groups_of(p.problem for p in pools), strict=True):
        for end in ends_of_paths(pool):
            if end.finished:
                text = solution_text(pool.nodes, end.id)
                found.append(
                    _solution(pool.problem, group, text, end.score, correct=is_correct(end))
                )
    return found


def sampled_solutions(
    results: Sequence[SearchResult], correct: Callable[[Problem, str], bool]
) -> list[ScoredPrefix]:
    """The distinct finished solutions among the first `SAMPLES` of each result of the strategy
    `solutions` that have a score. `correct` asks the verifier."""
    found: list[ScoredPrefix] = []
    for result, group in zip(results, groups_of(r.problem for r in results), strict=True):
        sampled = {
            node.text: node.score
            for node in result.nodes[1 : SAMPLES + 1]
            if node.finished and node.score is not None
        }
        found += [
            _solution(result.problem, group, text, score, correct=correct(result.problem, text))
            for text, score in sampled.items()
        ]
    return found


def _solution(
    problem: Problem, group: str, text: str, score: float | None, *, correct: bool
) -> ScoredPrefix:
    return ScoredPrefix(
        problem=problem.id,
        group=group,
        score=checked_score(problem, text, score),
        correct=int(correct),
        count=1,
    )


def reach_rows(
    prefixes: Sequence[DepthPrefix], task: StepTruths, max_value: int | None, seed: int
) -> list[AurocRow]:
    """The AUROC of exact reach, by the solver of `task`, whose results are at most `max_value`
    (None: no limit)."""
    truths = [float(task.in_reach(p.problem, p.text, max_value)) for p in prefixes]
    return _rows("reach", SOLVER, prefixes, truths, seed)


def estimated_reach_rows(
    prefixes: Sequence[DepthPrefix], rollouts: int, seed: int
) -> list[AurocRow]:
    """The AUROC of estimated reach: at least one of the `rollouts` completions of each prefix is
    correct. A prefix that is solved less often than about once in `rollouts` counts as out of
    reach."""
    truths = [float(p.scored.correct > 0) for p in prefixes]
    return _rows("reach", f"any of {rollouts} rollouts", prefixes, truths, seed)


def success_rows(prefixes: Sequence[DepthPrefix], evidence: str, seed: int) -> list[AurocRow]:
    """The AUROC of the success rates of prefixes. `evidence` says which completions they are
    from."""
    return _rows("success", evidence, prefixes, [p.success for p in prefixes], seed)


def finished_rows(solutions: Sequence[ScoredPrefix], seed: int) -> list[AurocRow]:
    """The AUROC of finished solutions, which is the same for both truths."""
    truths = [p.correct / p.count for p in solutions]
    return [
        _row(truth, "finished", VERDICT, solutions, truths, seed) for truth in ("reach", "success")
    ]


def _rows(
    truth: str,
    evidence: str,
    prefixes: Sequence[DepthPrefix],
    truths: Sequence[float],
    seed: int,
) -> list[AurocRow]:
    """One row for all prefixes and one for each depth."""
    kinds: dict[str, Sequence[int]] = {"unfinished": range(len(prefixes))}
    for depth in sorted({p.depth for p in prefixes}):
        kinds[f"depth {depth}"] = [i for i, p in enumerate(prefixes) if p.depth == depth]
    return [
        _row(
            truth, steps, evidence, [prefixes[i].scored for i in chosen],
            [truths[i] for i in chosen], seed,
        )
        for steps, chosen in kinds.items()
    ]  # fmt: skip


def _row(
    truth: str,
    steps: str,
    evidence: str,
    prefixes: Sequence[ScoredPrefix],
    truths: Sequence[float],
    seed: int,
) -> AurocRow:
    auroc, pairs = auroc_within_problems(prefixes, truths, seed)
    return AurocRow(
        truth=truth,
        steps=steps,
        evidence=evidence,
        prefixes=len(prefixes),
        mean=sum(truths) / len(truths) if truths else None,
        auroc=auroc,
        pairs=pairs,
    )


def auroc_metrics(rows: Sequence[AurocRow]) -> dict[str, float]:
    """The AUROCs that could be measured, by the names under which a stage logs them."""
    return {
        f"auroc_{row.truth}_{row.steps.replace(' ', '_')}": row.auroc.value
        for row in rows
        if row.auroc is not None
    }
