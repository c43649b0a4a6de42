"""Compare search strategies at several budgets on the same problems."""

from __future__ import annotations

from search.settings import SearchSettings
from trainer.comparing import CompareConfig, run_compare
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_compare(*parse_recipe((RuntimeConfig, CompareConfig, SearchSettings)))


if __name__ == "__main__":
    main()
