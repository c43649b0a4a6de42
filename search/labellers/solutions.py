"""Functions that all labellers share: sample rollouts of whole solutions, and make rows of step
labels from the evidence for their prefixes.

A rollout begins at the problem or at a prefix. A whole solution has at most `max_new_tokens`
tokens, wherever its rollout began. So every rollout of a prefix estimates the same
P(correct | prefix).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from data.types import Sample, StepLabels, Usage
from rewards.base import verdict_of
from search.base import SampleRequest, SearchEnd, Session
from search.labellers.evidence import Evidence

Steps = tuple[tuple[int, ...], ...]  # token ids of each step


@dataclass(frozen=True, kw_only=True)
class VerifiedRollout:
    """A whole solution as steps of token ids.

    The first `origin` steps are the prefix that the rollout continues; the other steps were
    sampled. `correct` is true when the solution is finished and the verifier accepts it.
    """

    steps: Steps
    origin: int
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The label rows of one problem and their cost. `end` is TOKENS when the budget was too small
    for all of the labeller's rollouts. With the method tree_q, `end` is that of the search."""

    rows: tuple[StepLabels, ...]
    usage: Usage
    end: SearchEnd = SearchEnd.COMPLETE


def cut_steps(session: Session, token_ids: tuple[int, ...]) -> Steps:
    """Cut the token ids of a solution into its steps."""
    ends = session.engine.step_ends(token_ids)
    starts = [0, *(end + 1 for end in ends[:-1])]
    return tuple(token_ids[a : b + 1] for a, b in zip(starts, ends, strict=True))


def joined(steps: Steps) -> tuple[int, ...]:
    """The token ids of all steps as one tuple."""
    return tuple(token for step in steps for token in step)


def evidence_of(rollouts: Sequence[VerifiedRollout]) -> Evidence:
    """The evidence of rollouts that all have the same prefix."""
    return Evidence(correct=sum(r.correct for r in rollouts), count=len(rollouts))


def finished_labels(session: Session, rows: Sequence[StepLabels], *, cut: bool) -> Labelled:
    """The rows with the cost of the session. `cut` says that the budget was too small for all
    rollouts."""
    end = SearchEnd.TOKENS if cut else SearchEnd.COMPLETE
    return Labelled(rows=tuple(rows), usage=session.usage, end=end)


async def free_solutions(session: Session, n: int) -> list[VerifiedRollout]:
    """Sample `n` solutions of the problem. With a budget, sample only as many as the budget allows
    when each takes `max_new_tokens` tokens, but at least one.

    The number is fixed before sampling. If sampling stopped when the budget is spent, it would stop
    at long solutions. The share of correct solutions would then be too low when the wrong solutions
    are long.
    """
    settings = session.settings
    if settings.max_generated_tokens:
        n = min(n, max(1, settings.max_generated_tokens // settings.max_new_tokens))
    return await _roll_out(session, [(0, (), n)])


async def roll_out(session: Session, node: int, prefix: Steps, n: int) -> list[VerifiedRollout]:
    """Sample `n` rollouts from `prefix`.

    The noise of a sample is keyed by its node. So the requests of one problem need distinct nodes,
    and all of them must be above 0.
    """
    return await _roll_out(session, [(node, prefix, n)])


async def roll_out_each(
    session: Session, wanted: Mapping[Steps, int]
) -> dict[Steps, list[VerifiedRollout]]:
    """Sample `wanted[prefix]` rollouts from each prefix. The prefixes have the nodes 1, 2, ...

    Without a budget, all rollouts are in one batch. With a budget, there is one batch per prefix
    until the budget is spent. So the rollouts of at most one prefix exceed the budget, and the
    result may lack prefixes.
    """
    if not session.settings.max_generated_tokens:
        asked = [(node, prefix, n) for node, (prefix, n) in enumerate(wanted.items(), start=1)]
        rollouts = iter(await _roll_out(session, asked))
        return {prefix: list(islice(rollouts, n)) for prefix, n in wanted.items()}
    found: dict[Steps, list[VerifiedRollout]] = {}
    for node, (prefix, n) in enumerate(wanted.items(), start=1):
        if session.exhausted():
            break
        found[prefix] = await roll_out(session, node, prefix, n)
    return found


async def _roll_out(
    session: Session, prefixes: Sequence[tuple[int, Steps, int]]
) -> list[VerifiedRollout]:
    """Rollouts from prefixes, each given with its node and its number of rollouts, in order."""
    if not prefixes:
        return []
    settings = session.settings
    results = await session.sample(
        [
            SampleRequest(
                node=node,
                prefix=session.prompt_ids + joined(prefix),
                n=n,
                stop_at_step=False,
                max_new_tokens=settings.max_new_tokens - len(joined(prefix)),
                temperature=settings.temperature,
            )
            for node, prefix, n in prefixes
        ]
    )
    return [
        _rollout(session, prefix, sample)
        for (_, prefix, _), result in zip(prefixes, results, strict=True)
        for sample in result.samples
    ]


def _rollout(session: Session, prefix: Steps, sample: Sample) -> VerifiedRollout:
    """A truncated solution counts as not correct, even if the verifier would accept its text."""
    token_ids = joined(prefix) + sample.token_ids
    text = session.engine.decode(token_ids)
    verdict = verdict_of(session.verify, text, finished=sample.stop_reason.finished)
    return VerifiedRollout(
        steps=cut_steps(session, token_ids), origin=len(prefix), correct=verdict.correct
    )


def distinct(rollouts: Sequence[VerifiedRollout]) -> list[VerifiedRollout]:
    """The first rollout of each distinct solution, in order."""
    first: dict[Steps, VerifiedRollout] = {}
    for rollout in rollouts:
        first.setdefault(rollout.steps, rollout)
    return list(first.values())


def prefixes_of(solutions: Sequence[VerifiedRollout]) -> list[Steps]:
    """The distinct prefixes of the solutions, in order of appearance. A whole solution is not one
    of its prefixes here."""
    found: dict[Steps, None] = {}
    for solution in solutions:
        for depth in range(1, len(solution.steps)):
            found[solution.steps[:depth]] = None
    return list(found)


def labelled_row(
    session: Session, solution: VerifiedRollout, known: Mapping[Steps, Evidence], *, hard: bool
) -> StepLabels:
    """The row of labels of a whole solution.

    The last label is the verifier's verdict. It is no estimate, so its count is 1 and its standard
    error is 0.

    A step without evidence at its end is joined with the steps that follow, up to the next step
    with evidence. Together they are one completion, with the label at its last token. This is an
    edge of several steps, as in OmegaPRM's tree (2406.06592, section 3.3).

    Hard labels also spread to steps without evidence. A correct rollout from a longer prefix shows
    that the shorter prefix can be completed, so its label is 1. After a prefix without a correct
    rollout, all labels are 0. A label that was spread has the count of the prefix that it comes
    from.
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
        completion_ids=tuple(joined(tuple(group)) for group in groups),
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
