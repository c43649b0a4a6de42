"""Whole solutions rolled out from the problem or from a prefix, and rows of step labels made of
what is known of their prefixes: what the labellers of search/labellers/by_name.py share.

A solution has at most `max_new_tokens` tokens wherever its rollout began, so that every rollout of
a prefix estimates the same P(correct | prefix).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.types import Sample, StepLabels, Usage
from rewards.base import verdict_of
from search.base import SampleRequest, SearchEnd, Session
from search.labellers.evidence import Evidence

Steps = tuple[tuple[int, ...], ...]  # token ids of each step


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A whole solution as steps of token ids. `origin`: how many leading steps were given to it
    rather than sampled; `correct`: the verifier's word."""

    steps: Steps
    origin: int
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What a labeller made of one problem, and what that cost; `end` is TOKENS where the budget
    was spent before it had done all."""

    rows: tuple[StepLabels, ...]
    usage: Usage
    end: SearchEnd = SearchEnd.COMPLETE


def cut_steps(session: Session, token_ids: tuple[int, ...]) -> Steps:
    ends = session.engine.step_ends(token_ids)
    starts = [0, *(end + 1 for end in ends[:-1])]
    return tuple(token_ids[a : b + 1] for a, b in zip(starts, ends, strict=True))


def flat(steps: Steps) -> tuple[int, ...]:
    return tuple(token for step in steps for token in step)


def evidence_of(rollouts: Sequence[Rollout]) -> Evidence:
    return Evidence(correct=sum(r.correct for r in rollouts), count=len(rollouts))


def finished_labels(session: Session, rows: Sequence[StepLabels], *, cut: bool) -> Labelled:
    """`cut`: the budget did not suffice for everything."""
    end = SearchEnd.TOKENS if cut else SearchEnd.COMPLETE
    return Labelled(rows=tuple(rows), usage=session.usage, end=end)


async def free_solutions(session: Session, n: int) -> list[Rollout]:
    """`n` solutions of the problem, or as many as a budget is sure to pay for, but at least one.

    How many is settled before they are sampled. Were they sampled until the budget is spent, long
    solutions would end the sampling, and where the wrong ones are long a share of correct ones
    would be too low.
    """
    settings = session.settings
    if settings.max_generated_tokens:
        n = min(n, max(1, settings.max_generated_tokens // settings.max_new_tokens))
    return await _roll_out(session, [(0, ())], n)


async def roll_out(session: Session, node: int, prefix: Steps, n: int) -> list[Rollout]:
    """`n` rollouts from `prefix`. Requests of one problem need distinct nodes, all above 0: the
    noise of a sample is keyed by them."""
    return await _roll_out(session, [(node, prefix)], n)


async def roll_out_each(
    session: Session, prefixes: Sequence[Steps], n: int
) -> dict[Steps, list[Rollout]]:
    """`n` rollouts from each prefix, nodes 1, 2, ...: all at once, or where there is a budget one
    prefix at a time until it is spent, so that no more than one prefix's are in flight over it."""
    if not session.settings.max_generated_tokens:
        rollouts = await _roll_out(session, list(enumerate(prefixes, start=1)), n)
        return {p: rollouts[i * n : (i + 1) * n] for i, p in enumerate(prefixes)}
    found: dict[Steps, list[Rollout]] = {}
    for node, prefix in enumerate(prefixes, start=1):
        if session.exhausted():
            break
        found[prefix] = await roll_out(session, node, prefix, n)
    return found


async def _roll_out(
    session: Session, prefixes: Sequence[tuple[int, Steps]], n: int
) -> list[Rollout]:
    if not prefixes:
        return []
    settings = session.settings
    results = await session.sample(
        [
            SampleRequest(
                node=node,
                prefix=session.prompt_ids + flat(prefix),
                n=n,
                stop_at_step=False,
                max_new_tokens=settings.max_new_tokens - len(flat(prefix)),
                temperature=settings.temperature,
            )
            for node, prefix in prefixes
        ]
    )
    return [
        _rollout(session, prefix, sample)
        for (_, prefix), result in zip(prefixes, results, strict=True)
        for sample in result.samples
    ]


def _rollout(session: Session, prefix: Steps, sample: Sample) -> Rollout:
    token_ids = flat(prefix) + sample.token_ids
    text = session.engine.decode(token_ids)
    verdict = verdict_of(session.verify, text, finished=sample.stop_reason.finished)
    return Rollout(steps=cut_steps(session, token_ids), origin=len(prefix), correct=verdict.correct)


def distinct(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The first of each solution, in order."""
    first: dict[Steps, Rollout] = {}
    for rollout in rollouts:
        first.setdefault(rollout.steps, rollout)
    return list(first.values())


def prefixes_of(solutions: Sequence[Rollout]) -> list[Steps]:
    """Distinct non-terminal prefixes, in order of appearance."""
    found: dict[Steps, None] = {}
    for solution in solutions:
        for depth in range(1, len(solution.steps)):
            found[solution.steps[:depth]] = None
    return list(found)


def labelled_row(
    session: Session, solution: Rollout, known: Mapping[Steps, Evidence], *, hard: bool
) -> StepLabels:
    """A row of a whole solution. Its last label is the verifier's word, which is no estimate:
    count 1, standard error 0.

    Steps whose end nothing is known of belong to the next completion, whose label stands at its
    last token: an edge of several steps, as in OmegaPRM's tree (2406.06592, section 3.3). Hard
    labels spread to them: a correct rollout from further on shows that the prefix can be completed,
    and beyond a prefix that could not be there is nothing to find. Such a label has the count of
    the prefix it comes from.
    """
    depths = len(solution.steps)
    at = [known.get(solution.steps[:depth]) for depth in range(1, depths)]
    if hard:
        at = _spread(at, solution.correct)
    groups: list[list[tuple[int, ...]]] = []
    labels: list[float] = []
    counts: list[int] = []
    errors: list[float] = []
    pending: list[tuple[int, ...]] = []
    for step, evidence in zip(solution.steps, [*at, None], strict=True):
        pending.append(step)
        if evidence is not None:
            groups.append(pending)
            labels.append(evidence.label(hard=hard))
            counts.append(evidence.count)
            errors.append(evidence.standard_error(hard=hard))
            pending = []
    groups.append(pending)
    return StepLabels(
        problem_id=session.problem.id,
        prompt=session.problem.prompt,
        prompt_ids=session.prompt_ids,
        completions=tuple("".join(map(session.engine.decode, group)) for group in groups),
        completion_ids=tuple(flat(tuple(group)) for group in groups),
        labels=(*labels, float(solution.correct)),
        counts=(*counts, 1),
        standard_errors=(*errors, 0.0),
    )


def _spread(at: Sequence[Evidence | None], correct: bool) -> list[Evidence | None]:
    spread = list(at)
    later = Evidence(correct=1, count=1) if correct else None
    for i in reversed(range(len(at))):
        here = at[i]
        if here is not None and here.correct:
            later = here
        spread[i] = here or later
    earlier: Evidence | None = None
    for i, here in enumerate(at):
        if here is not None and not here.correct:
            earlier = here
        spread[i] = spread[i] or earlier
    return spread
