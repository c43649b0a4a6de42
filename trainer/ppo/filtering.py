"""Online filtering (dynamic sampling, DAPO 2503.14476, section 3.2 and equation 11).

A problem whose samples are all right or all wrong teaches a group-relative learner nothing. Such
problems are replaced by further ones until the batch is full, or until a bound on the rounds.
Everything sampled is counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.types import Problem, Usage
from trainer.rollouts.collect import Rollout
from trainer.rollouts.files import ordered_groups


@dataclass(frozen=True, kw_only=True)
class FilterMetrics:
    """Counts over all processes. `filtered_share` is the share of the `sampled_problems` whose
    samples all had one outcome. `unfilled_share` is the share of the batch that holds such problems
    nonetheless, as no more were sampled. `filtered_tokens` were sampled but are not learnt from.
    `sampled_correct` is the share of correct solutions before filtering."""

    sampled_problems: int
    filtered_share: float
    unfilled_share: float
    filtered_tokens: int
    sampled_correct: float


@dataclass(frozen=True, kw_only=True)
class FilteredRollouts:
    """This process's share of a filtered batch, and what this process spent on all rounds."""

    rollouts: list[Rollout]
    usage: Usage
    metrics: FilterMetrics


def replacements(
    problems: Sequence[Problem], chosen: Sequence[Problem], cycle: int, seed: int
) -> list[Problem]:
    """The problems that are not `chosen`, in an order of this cycle's own."""
    taken = {problem.id for problem in chosen}
    others = [problem for problem in problems if problem.id not in taken]
    random.Random(f"{seed} replacements {cycle}").shuffle(others)
    return others


def collect_mixed(
    problems: Sequence[Problem],
    further: Sequence[Problem],
    *,
    samples: int,
    rounds: int,
    process: int,
    processes: int,
    collect: Callable[[Sequence[Problem]], tuple[list[Rollout], Usage]],
    gather: Callable[[list[Rollout]], Sequence[Sequence[Rollout]]],
) -> FilteredRollouts:
    """As many problems with mixed outcomes as there are `problems`, in the order in which they were
    sampled. Problems with one outcome fill the rest.

    `collect` gives this process's share of the problems (every `processes`-th), with `samples`
    rollouts of each. `gather` gives every process's rollouts. Each round after the first samples as
    many of the `further` problems as are missing, and at most `processes` - 1 more; there are at
    most `rounds` such rounds.
    """
    asked, waiting = list(problems), list(further)
    groups: list[list[Rollout]] = []
    usage = Usage()
    for _ in range(1 + rounds):
        own, spent = collect(asked)
        usage += spent
        groups += ordered_groups(gather(own), samples)
        missing = len(problems) - sum(map(is_mixed, groups))
        wanted = min(-(-missing // processes) * processes, len(waiting))
        take = max(0, wanted // processes * processes)
        asked, waiting = waiting[:take], waiting[take:]
        if not asked:
            break
    mixed = [group for group in groups if is_mixed(group)]
    others = [group for group in groups if not is_mixed(group)]
    kept = (mixed + others)[: len(problems)]
    return FilteredRollouts(
        rollouts=[rollout for group in kept[process::processes] for rollout in group],
        usage=usage,
        metrics=FilterMetrics(
            sampled_problems=len(groups),
            filtered_share=len(others) / len(groups),
            unfilled_share=max(0, len(problems) - len(mixed)) / len(problems),
            filtered_tokens=_tokens(groups) - _tokens(kept),
            sampled_correct=sum(r.correct for g in groups for r in g) / (len(groups) * samples),
        ),
    )


def is_mixed(group: Sequence[Rollout]) -> bool:
    """Whether the samples of one problem have more than one outcome."""
    return len({rollout.outcome for rollout in group}) > 1


def _tokens(groups: Sequence[Sequence[Rollout]]) -> int:
    return sum(len(rollout.response_ids) for group in groups for rollout in group)
