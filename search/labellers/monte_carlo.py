"""Step labels from rollouts: pooled in a trie, or n rollouts from every step (Math-Shepherd,
2312.08935).

docs/labels.md says which labels are unbiased, for which prefixes, and how large the bias of the
other labels is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.types import StepLabels
from search.base import Session
from search.labellers.evidence import Evidence
from search.labellers.solutions import (
    Labelled,
    Steps,
    VerifiedRollout,
    distinct,
    evidence_of,
    finished_labels,
    free_solutions,
    labelled_row,
    prefixes_of,
    roll_out,
    roll_out_each,
)
from search.laplace import laplace_error

OWN_ROLLOUT = ("count", "leave_out")


@dataclass(frozen=True, kw_only=True)
class MonteCarloConfig:
    """Labels from the verdicts of solutions that share a prefix.

    A prefix gets a label because a solution was sampled through it. This solution is one of the
    rollouts of the prefix. `own_rollout` says whether it counts in the label:
    - count: it counts, and each distinct solution is one row. The label of a prefix is unbiased.
      But the labels of a row have a bias of (verdict - V) / n towards the verdict of that row. A
      mean over rows has a bias towards the verdict with more distinct solutions.
    - leave_out: it does not count, and every solution is one row. The mean over rows is unbiased,
      whatever the verdicts are. Steps that no other rollout passed have no label.
    """

    solutions: int = 8
    """Free samples per problem."""
    rollouts_per_step: int = 0
    """Further rollouts from each of the `prefixes`; 0: none."""
    prefixes: int = 2
    """Distinct unfinished prefixes per problem that get further rollouts."""
    hard_labels: bool = False
    """true: a step's label is 1 if any of its rollouts is correct, else 0. false: the share."""
    own_rollout: str = "count"
    """count: a solution counts in the labels of its own prefixes. leave_out: it does not."""

    def __post_init__(self) -> None:
        if self.solutions < 1:
            raise ValueError(f"solutions is {self.solutions}; it must be at least 1")
        if self.rollouts_per_step < 0 or self.prefixes < 0:
            raise ValueError("rollouts_per_step and prefixes must not be negative")
        if self.own_rollout not in OWN_ROLLOUT:
            raise ValueError(
                f"own_rollout is {self.own_rollout!r}; allowed: {', '.join(OWN_ROLLOUT)}"
            )


async def label_monte_carlo(session: Session, config: MonteCarloConfig) -> Labelled:
    """Label steps with free samples of whole solutions and further rollouts from some prefixes.

    All rollouts are pooled in a trie. The label of a prefix is the share of correct completions
    among those that were sampled from this prefix or from a shorter one. Completions that
    were sampled from a longer prefix do not count, because they do not follow the distribution of
    completions of this prefix.
    """
    rollouts, cut = await pooled_solutions(session, config)
    problem = session.problem
    if config.own_rollout == "leave_out":
        totals = pool(rollouts)
        rows = [
            labelled_row(session, own, _without(totals, own), hard=config.hard_labels)
            for own in rollouts
        ]
    elif config.hard_labels:
        totals = pool(rollouts)
        rows = [labelled_row(session, r, totals, hard=True) for r in distinct(rollouts)]
    else:
        rows = step_labels(
            problem.id, problem.prompt, session.prompt_ids, rollouts, session.engine.decode
        )
    return finished_labels(session, rows, cut=cut)


async def pooled_solutions(
    session: Session, config: MonteCarloConfig
) -> tuple[list[VerifiedRollout], bool]:
    """Sample all rollouts. Also returns whether the budget was too small for all of them."""
    wanted = config.solutions + config.prefixes * config.rollouts_per_step
    session.share_after_call = config.solutions / wanted
    rollouts = await free_solutions(session, config.solutions)
    session.share_after_call = 1.0
    cut = len(rollouts) < config.solutions
    if config.rollouts_per_step:
        chosen = prefixes_of(rollouts)[: config.prefixes]
        found = await roll_out_each(session, dict.fromkeys(chosen, config.rollouts_per_step))
        rollouts += [rollout for group in found.values() for rollout in group]
        cut = cut or len(found) < len(chosen)
    return rollouts, cut


def pool(rollouts: Sequence[VerifiedRollout]) -> dict[Steps, Evidence]:
    """The evidence for each prefix: the rollouts that pass it and were sampled from it or from a
    shorter prefix."""
    totals: dict[Steps, Evidence] = {}
    for rollout in rollouts:
        for depth in range(max(1, rollout.origin), len(rollout.steps) + 1):
            prefix = rollout.steps[:depth]
            known = totals.get(prefix, Evidence(correct=0, count=0))
            totals[prefix] = Evidence(
                correct=known.correct + rollout.correct, count=known.count + 1
            )
    return totals


def _without(totals: dict[Steps, Evidence], own: VerifiedRollout) -> dict[Steps, Evidence]:
    """The evidence in `totals` for the unfinished prefixes of the rollout `own`, without `own`."""
    left: dict[Steps, Evidence] = {}
    for depth in range(1, len(own.steps)):
        prefix = own.steps[:depth]
        known = totals.get(prefix)
        if known is not None and depth >= own.origin:
            known = Evidence(correct=known.correct - own.correct, count=known.count - 1)
        if known is not None and known.count:
            left[prefix] = known
    return left


def step_labels(
    problem_id: str,
    prompt: str,
    prompt_ids: tuple[int, ...],
    rollouts: Sequence[VerifiedRollout],
    decode: Callable[[Sequence[int]], str],
) -> list[StepLabels]:
    """One row of soft labels per distinct solution (see `label_monte_carlo` for the estimate).

    A solution that has a prefix without evidence gets no row. The standard errors follow Laplace's
    rule at every step, and also at the last step, whose label comes from the verifier.
    """
    totals = pool(rollouts)
    rows: list[StepLabels] = []
    for steps in dict.fromkeys(rollout.steps for rollout in rollouts):
        prefixes = [steps[:depth] for depth in range(1, len(steps) + 1)]
        known = [totals[p] for p in prefixes if p in totals]
        if len(known) < len(prefixes):
            continue
        labels = [evidence.label(hard=False) for evidence in known]
        counts = [evidence.count for evidence in known]
        rows.append(
            StepLabels(
                problem_id=problem_id,
                prompt=prompt,
                prompt_ids=prompt_ids,
                completions=tuple(decode(step) for step in steps),
                completion_ids=steps,
                labels=tuple(labels),
                counts=tuple(counts),
                standard_errors=tuple(map(laplace_error, labels, counts)),
            )
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class EveryStepConfig:
    """Labels from rollouts after every step."""

    solutions: int = 8
    """Free samples per problem; their steps are labelled."""
    rollouts: int = 8
    """Rollouts per step."""
    rollouts_by_depth: tuple[int, ...] = ()
    """Rollouts after the first steps, such as [16, 16, 8]; deeper steps get `rollouts`."""
    early_solutions: int = 0
    """Further free samples per problem; only their first `early_depth` steps are labelled."""
    early_depth: int = 2
    """Number of first steps of the `early_solutions` that are labelled."""
    hard_labels: bool = False
    """true: a step's label is 1 if any of its rollouts is correct, else 0. false: the share."""
    stop_at_first_error: bool = False
    """true: no rollouts after the first step without a correct rollout; hard labels there are 0."""

    def __post_init__(self) -> None:
        for name in ("solutions", "rollouts", "early_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.early_solutions < 0:
            raise ValueError(f"early_solutions is {self.early_solutions}; it must not be negative")
        if any(n < 1 for n in self.rollouts_by_depth):
            raise ValueError(
                f"rollouts_by_depth is {list(self.rollouts_by_depth)}; each number must be at "
                "least 1"
            )

    def rollouts_after(self, prefix: Steps) -> int:
        """The number of rollouts from the end of a prefix of one or more steps."""
        by_depth = self.rollouts_by_depth
        return by_depth[len(prefix) - 1] if len(prefix) <= len(by_depth) else self.rollouts


async def label_every_step(session: Session, config: EveryStepConfig) -> Labelled:
    """Label every step by n fresh rollouts from its end (Math-Shepherd, section 3.3).

    The solution itself is not one of these rollouts. Solutions with a common prefix share the
    rollouts of that prefix. The paper samples them again for each solution.

    The rows of the early solutions join their steps after `early_depth` to one completion, unless
    another solution has labels for them.
    """
    asked = config.solutions + config.early_solutions
    sampled = await free_solutions(session, asked)
    solutions = distinct(sampled)
    whole = {solution.steps for solution in sampled[: config.solutions]}
    known: dict[Steps, Evidence] = {}
    cut = len(sampled) < asked
    if config.stop_at_first_error:
        for solution in solutions:
            last = len(solution.steps) - 1
            most = last if solution.steps in whole else min(last, config.early_depth)
            cut = cut or not await _to_first_error(session, solution, known, config, most)
    else:
        early = [prefix for prefix in prefixes_of(solutions) if len(prefix) <= config.early_depth]
        full = prefixes_of([solution for solution in solutions if solution.steps in whole])
        wanted = {prefix: config.rollouts_after(prefix) for prefix in [*full, *early]}
        found = await roll_out_each(session, wanted)
        known = {prefix: evidence_of(rollouts) for prefix, rollouts in found.items()}
        cut = cut or len(found) < len(wanted)
    rows = [
        labelled_row(session, solution, known, hard=config.hard_labels) for solution in solutions
    ]
    return finished_labels(session, rows, cut=cut)


async def _to_first_error(
    session: Session,
    solution: VerifiedRollout,
    known: dict[Steps, Evidence],
    config: EveryStepConfig,
    most: int,
) -> bool:
    """Add the evidence for the solution's prefixes to `known`, up to the first prefix without a
    correct rollout, or to `most` steps. Returns False when the budget was spent before that."""
    for depth in range(1, most + 1):
        prefix = solution.steps[:depth]
        if prefix not in known:
            if session.exhausted():
                return False
            n = config.rollouts_after(prefix)
            known[prefix] = evidence_of(await roll_out(session, 1 + len(known), prefix, n))
        if not known[prefix].correct:
            break
    return True
