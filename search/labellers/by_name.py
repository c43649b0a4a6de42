"""All labellers by name: the one place that a new one is entered. Each is plain sequential code
for one problem, an `async` function of a session and its config, like a search strategy.

What they make is the same whatever the method: rows of `data.types.StepLabels` with counts and
standard errors, and what they cost. They spend at most `LabelSettings.max_generated_tokens` a
problem, and what is in flight.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from data.types import StepLabels
from search.base import Session
from search.labellers.binary_search import BinarySearchConfig, label_binary_search
from search.labellers.monte_carlo import (
    EveryStepConfig,
    MonteCarloConfig,
    label_every_step,
    label_monte_carlo,
)
from search.labellers.solutions import Labelled
from search.labellers.tree_values import TreeConfig, label_tree_q
from search.settings import SearchSettings

Labeller = Callable[[Session], Awaitable[Labelled]]


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How rollouts are sampled and what a problem may cost."""

    temperature: float = 1.0
    """Sampling temperature, above 0."""
    max_new_tokens: int = 64
    """Limit of one solution, in tokens after the prompt."""
    max_generated_tokens: int = 0
    """Tokens after which a problem's labelling stops with what it has; 0: no limit."""

    def __post_init__(self) -> None:
        self.of_a_search()

    def of_a_search(self) -> SearchSettings:
        """Raises ValueError for a value that is not allowed."""
        return SearchSettings(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            max_generated_tokens=self.max_generated_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class LabellerEntry:
    config: type
    label: Callable[..., Awaitable[Labelled]]


LABELLERS: dict[str, LabellerEntry] = {
    "monte_carlo": LabellerEntry(config=MonteCarloConfig, label=label_monte_carlo),
    "every_step": LabellerEntry(config=EveryStepConfig, label=label_every_step),
    "binary_search": LabellerEntry(config=BinarySearchConfig, label=label_binary_search),
    "tree_q": LabellerEntry(config=TreeConfig, label=label_tree_q),
}


def labeller_entry(name: str) -> LabellerEntry:
    """Raises ValueError naming what is allowed."""
    if name not in LABELLERS:
        raise ValueError(f"method is {name!r}; allowed: {', '.join(LABELLERS)}")
    return LABELLERS[name]


def bind_labeller(config: Any) -> Labeller:
    """The labeller that a config belongs to, ready to be started per problem."""
    for known in LABELLERS.values():
        if isinstance(config, known.config):
            return partial(known.label, config=config)
    raise ValueError(f"no labeller takes a {type(config).__name__}")


def first_error(row: StepLabels) -> int | None:
    """Which of the row's completions is the first with label 0; None where none has."""
    return next((i for i, label in enumerate(row.labels) if label == 0.0), None)
