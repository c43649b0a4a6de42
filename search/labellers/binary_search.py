"""Binary search for the first error of wrong solutions (OmegaPRM, 2406.06592, section 3.3).

As in the paper: there is a tree of states, and k rollouts give a state its Monte Carlo value MC(s).
The wrong rollouts of states with 0 < MC < 1 form a pool. The rollout with the largest Q(s, r) +
U(s) is searched next. The search halves this rollout until it has the first step after which no
rollout is correct. New rollouts of the search join the pool. Labels are MC(s), soft or hard.

Different from the paper:
- A rollout is cut at the ends of its steps, not into pieces of about equal length.
- Equal rollouts are searched once.
- A state that several rollouts share is rolled out once.
- Only solutions that were sampled freely or searched become rows of labels. All other rollouts
  serve as evidence only.
- The pairwise training objective is left out, because it does not concern labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

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
    joined,
    labelled_row,
    roll_out,
)


@dataclass(frozen=True, kw_only=True)
class BinarySearchConfig:
    """Settings of OmegaPRM's binary search. The defaults of alpha, beta, length_scale and
    exploration are those of the paper."""

    solutions: int = 8
    """Free samples per problem, which are the rollouts of the empty prefix (8 in the paper)."""
    rollouts: int = 8
    """Rollouts per state other than the empty prefix (k; 8 in the paper)."""
    searches: int = 16
    """Limit of the wrong rollouts that are searched per problem (100 in the paper)."""
    alpha: float = 0.5
    """alpha in Q(s, r), the base of the factor for the state's value MC(s), in (0, 1]."""
    beta: float = 0.9
    """beta in Q(s, r), the base of the factor for the rollout's length, in (0, 1]."""
    length_scale: float = 500.0
    """Length scale L in Q(s, r), in tokens, above 0."""
    exploration: float = 0.125
    """Exploration constant c_puct in U(s), at least 0."""
    hard_labels: bool = False
    """true: a step's label is 1 if any of its rollouts is correct, else 0. false: the share."""
    search_unsolved: bool = False
    """true: also search when no solution of a problem is correct; the paper skips such problems."""

    def __post_init__(self) -> None:
        for name in ("solutions", "rollouts", "searches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in (0, 1]")
        if not self.length_scale > 0:
            raise ValueError(f"length_scale is {self.length_scale}; it must be above 0")
        if not self.exploration >= 0:
            raise ValueError(f"exploration is {self.exploration}; it must not be negative")


@dataclass(slots=True, kw_only=True)
class State:
    """The problem and the first steps of a solution.

    `waiting` holds the state's wrong rollouts that are not searched yet. `selections` counts the
    state's rollouts that were searched (N in the paper).
    """

    steps: Steps
    evidence: Evidence
    waiting: list[VerifiedRollout] = field(default_factory=list[VerifiedRollout])
    selections: int = 0


async def label_binary_search(session: Session, config: BinarySearchConfig) -> Labelled:
    """Label the steps of a problem's solutions by binary searches for first errors.

    The free solutions, and the other rollouts that were searched, each become one row of labels.
    """
    solutions = await free_solutions(session, config.solutions)
    states = {(): _state((), solutions)}
    if not states[()].evidence.correct and not config.search_unsolved:
        states[()].waiting.clear()
    searched: dict[Steps, VerifiedRollout] = {}
    cut = len(solutions) < config.solutions
    while len(searched) < config.searches:
        chosen = select(states.values(), config)
        if chosen is None:
            break
        state, rollout = chosen
        state.waiting.remove(rollout)
        if rollout.steps in searched:
            continue
        state.selections += 1
        searched[rollout.steps] = rollout
        if not await _search(session, states, state, rollout, config.rollouts):
            cut = True
            break
    known = {steps: state.evidence for steps, state in states.items()}
    rows = [
        labelled_row(session, solution, known, hard=config.hard_labels)
        for solution in distinct([*solutions, *searched.values()])
    ]
    return finished_labels(session, rows, cut=cut)


def rollout_value(state: State, rollout: VerifiedRollout, config: BinarySearchConfig) -> float:
    """Q(s, r) = alpha^(1 - MC(s)) beta^(len(r) / L), with len(r) in tokens after the state.

    A rollout is worth more when it is short, and when most rollouts of its state are correct
    although it is wrong.
    """
    mean = state.evidence.correct / state.evidence.count
    length = len(joined(rollout.steps[len(state.steps) :]))
    return config.alpha ** (1 - mean) * config.beta ** (length / config.length_scale)


def select(
    states: Iterable[State], config: BinarySearchConfig
) -> tuple[State, VerifiedRollout] | None:
    """The waiting rollout with the largest Q(s, r) + U(s), and its state. None when no rollout
    waits.

    U(s) = c sqrt(sum N) / (1 + N(s)). The earliest rollout wins a tie.
    """
    states = list(states)
    scale = config.exploration * math.sqrt(sum(state.selections for state in states))
    best: tuple[float, State, VerifiedRollout] | None = None
    for state in states:
        for rollout in state.waiting:
            value = rollout_value(state, rollout, config) + scale / (1 + state.selections)
            if best is None or value > best[0]:
                best = (value, state, rollout)
    return None if best is None else best[1:]


def _state(steps: Steps, rollouts: list[VerifiedRollout]) -> State:
    """A state with these rollouts. If none of them is correct, none of them is searched. The empty
    prefix is an exception: `label_binary_search` decides about it."""
    evidence = evidence_of(rollouts)
    wrong = [rollout for rollout in rollouts if not rollout.correct]
    return State(
        steps=steps,
        evidence=evidence,
        waiting=wrong if evidence.correct or not steps else [],
    )


async def _search(
    session: Session, states: dict[Steps, State], state: State, rollout: VerifiedRollout, n: int
) -> bool:
    """Search the first error of a wrong rollout by halving. The search begins between the state of
    the rollout, from which a correct rollout exists, and the end of the rollout, which is wrong.
    Returns False when the budget was spent before the first error was known."""
    low, high = len(state.steps), len(rollout.steps)
    while high - low > 1:
        middle = (low + high) // 2
        prefix = rollout.steps[:middle]
        if prefix not in states:
            if session.exhausted():
                return False
            states[prefix] = _state(prefix, await roll_out(session, len(states), prefix, n))
        if states[prefix].evidence.correct:
            low = middle
        else:
            high = middle
    return True
