"""The first error of incorrect solutions by binary search (OmegaPRM 2406.06592, section 3.3).

Taken from the paper: the tree of states; the Monte Carlo value MC(s) of a state by k rollouts; the
pool of wrong rollouts of states with 0 < MC < 1, each of which can be searched; its choice by
Q(s, r) + U(s); a search that halves a wrong rollout until the first step that cannot be completed
correctly is found; new rollouts made on the way that join the pool; labels MC(s), soft or hard.

Left, or different: a rollout is halved at the ends of its steps, not of pieces of about equal
length; rollouts that are equal are searched once; a state that several rollouts share is rolled
out once; labels are of whole solutions that were sampled or searched, and what else was rolled out
serves as evidence only; the pairwise training objective is no matter of labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from search.base import Session
from search.labellers.evidence import Evidence
from search.labellers.solutions import (
    Labelled,
    Rollout,
    Steps,
    distinct,
    evidence_of,
    finished_labels,
    flat,
    free_solutions,
    labelled_row,
    roll_out,
)


@dataclass(frozen=True, kw_only=True)
class BinarySearchConfig:
    """Settings of OmegaPRM's binary search. Defaults of alpha to exploration are the paper's."""

    solutions: int = 8
    """Free samples per problem; they are the rollouts of the problem itself (8 in the paper)."""
    rollouts: int = 8
    """Rollouts per other state (k; 8 in the paper)."""
    searches: int = 16
    """Most wrong rollouts that are searched per problem (100 in the paper)."""
    alpha: float = 0.5
    """Base of the value estimate's weight in the choice of a rollout, in (0, 1]."""
    beta: float = 0.9
    """Base of the length's weight in the choice of a rollout, in (0, 1]."""
    length_scale: float = 500.0
    """Length scale L of the choice, in tokens."""
    exploration: float = 0.125
    """Exploration constant c_puct of the choice, at least 0."""
    hard_labels: bool = False
    """true: a step's label is 1 if any of its rollouts is correct, else 0. false: the share."""
    search_unsolved: bool = False
    """Search wrong solutions also where no solution is correct; the paper leaves those out."""

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
    """The problem and some steps. `waiting`: its wrong rollouts that were not searched yet;
    `selections`: how often one of them was (N in the paper)."""

    steps: Steps
    evidence: Evidence
    waiting: list[Rollout] = field(default_factory=list[Rollout])
    selections: int = 0


async def label_binary_search(session: Session, config: BinarySearchConfig) -> Labelled:
    solutions = await free_solutions(session, config.solutions)
    states = {(): _state((), solutions)}
    if not states[()].evidence.correct and not config.search_unsolved:
        states[()].waiting.clear()
    searched: dict[Steps, Rollout] = {}
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


def rollout_value(state: State, rollout: Rollout, config: BinarySearchConfig) -> float:
    """Q(s, r) = alpha^(1 - MC(s)) beta^(len(r) / L), len(r) being the tokens sampled after the
    state: wrong where it should be right, and short, is what is worth searching."""
    mean = state.evidence.correct / state.evidence.count
    length = len(flat(rollout.steps[len(state.steps) :]))
    return config.alpha ** (1 - mean) * config.beta ** (length / config.length_scale)


def select(states: Iterable[State], config: BinarySearchConfig) -> tuple[State, Rollout] | None:
    """The waiting rollout with the largest Q(s, r) + U(s), U(s) = c sqrt(sum N) / (1 + N(s)); of
    equals the earliest. None where nothing waits."""
    states = list(states)
    scale = config.exploration * math.sqrt(sum(state.selections for state in states))
    best: tuple[float, State, Rollout] | None = None
    for state in states:
        for rollout in state.waiting:
            value = rollout_value(state, rollout, config) + scale / (1 + state.selections)
            if best is None or value > best[0]:
                best = (value, state, rollout)
    return None if best is None else best[1:]


def _state(steps: Steps, rollouts: list[Rollout]) -> State:
    """A state that cannot be completed correctly has no rollout worth searching; the problem
    itself is another matter."""
    evidence = evidence_of(rollouts)
    wrong = [rollout for rollout in rollouts if not rollout.correct]
    return State(
        steps=steps,
        evidence=evidence,
        waiting=wrong if evidence.correct or not steps else [],
    )


async def _search(
    session: Session, states: dict[Steps, State], state: State, rollout: Rollout, n: int
) -> bool:
    """Halve the wrong rollout between the state it was made from, which can be completed correctly,
    and its end, which is wrong. False where the budget was spent before the first error was
    found."""
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
