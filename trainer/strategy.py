"""Recipes that name a search strategy or a labeller: its own keys belong to the recipe too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from search.label import labeller_entry
from search.strategies import entry
from trainer.recipe import parse_recipe, peek


def parse_with_strategy(
    dataclass_types: tuple[type, ...], argv: Sequence[str] | None = None, default: str = "mcts"
) -> tuple[Any, ...]:
    """One instance of each type and, last, of the config that the recipe's `strategy` has.

    Raises ValueError for an unknown strategy, and whatever `parse_recipe` raises.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = peek("strategy", argv, default)
    return parse_recipe((*dataclass_types, entry(str(name)).config), argv)


def parse_with_labeller(
    dataclass_types: tuple[type, ...], argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """The same for the recipe's `method`, monte_carlo where none is named."""
    argv = sys.argv[1:] if argv is None else argv
    name = peek("method", argv, "monte_carlo")
    return parse_recipe((*dataclass_types, labeller_entry(str(name)).config), argv)
