"""The registry of all labellers by name. A new labeller needs one entry here and nowhere else.

Like a search strategy, a labeller is plain sequential code for one problem: an `async` function of
a session and a config. All labellers return the same type: rows of `data.types.StepLabels` with
counts and standard errors, and the cost. A labeller exceeds `LabelSettings.max_generated_tokens`
per problem by at most the batch that was running.
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
from search.labellers.solver import SolverConfig, label_by_solver
from search.labellers.tree_solutions import TreeSolutionsConfig, label_tree_solutions
from search.labellers.tree_values import TreeConfig, label_tree_q
from search.settings import SearchSettings

Labeller = Callable[[Session], Awaitable[Labelled]]


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How rollouts are sampled, and the limits per problem."""

    temperature: float = 1.0
    """Sampling temperature, above 0."""
    max_new_tokens: int = 64
    """Limit of one solution, in tokens after the prompt."""
    max_generated_tokens: int = 0
    """Tokens per problem after which labelling stops and keeps its labels; 0: no limit."""
    kept_prefixes_mib: int = 0
    """Memory for keys and values of prefixes, MiB per model and process; 0: none are kept."""

    def __post_init__(self) -> None:
        self.of_a_search()

    def of_a_search(self) -> SearchSettings:
        """These settings as search settings. Raises ValueError for a value that is not allowed."""
        return SearchSettings(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            max_generated_tokens=self.max_generated_tokens,
            kept_prefixes_mib=self.kept_prefixes_mib,
        )


@dataclass(frozen=True, kw_only=True)
class LabellerEntry:
    """One labeller: the type of its config, and its function."""

    config: type
    label: Callable[..., Awaitable[Labelled]]


LABELLERS: dict[str, LabellerEntry] = {
    "monte_carlo": LabellerEntry(config=MonteCarloConfig, label=label_monte_carlo),
    "every_step": LabellerEntry(config=EveryStepConfig, label=label_every_step),
    "binary_search": LabellerEntry(config=BinarySearchConfig, label=label_binary_search),
    "tree_q": LabellerEntry(config=TreeConfig, label=label_tree_q),
    "solver": LabellerEntry(config=SolverConfig, label=label_by_solver),
    "tree_solutions": LabellerEntry(config=TreeSolutionsConfig, label=label_tree_solutions),
}


def labeller_entry(name: str) -> LabellerEntry:
    """The entry of a labeller. Raises ValueError for an unknown name; the message lists all
    names."""
    if name not in LABELLERS:
        raise ValueError(f"method is {name!r}; allowed: {', '.join(LABELLERS)}")
    return LABELLERS[name]


def bind_labeller(config: Any) -> Labeller:
    """The labeller for the type of `config`, with this config. It starts once per problem.

    Raises ValueError when no labeller takes a config of this type.
    """
    for known in LABELLERS.values():
        if isinstance(config, known.config):
            return partial(known.label, config=config)
    raise ValueError(f"no labeller takes a {type(config).__name__}")


def first_error(row: StepLabels) -> int | None:
    """The index of the row's first completion with label 0, or None when there is none."""
    return next((i for i, label in enumerate(row.labels) if label == 0.0), None)
