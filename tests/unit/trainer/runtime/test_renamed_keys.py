"""An old name of a recipe's key is refused by an error that says the new one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from pkgutil import resolve_name

import pytest

from data.renamed_keys import RENAMED_KEYS, refuse_renamed_keys
from search.labellers.by_name import LABELLERS
from search.settings import SearchSettings
from search.strategies.by_name import STRATEGIES
from search.strategies.mcts.config import MCTSConfig
from trainer.evaluation.strategies import read_strategy
from trainer.report.results import ReportConfig
from trainer.rollouts.held_out import HeldOutConfig
from trainer.rollouts.solution_reward import GroupRLConfig
from trainer.runtime.command_line import parse_recipe
from trainer.runtime.stage_registry import STAGES

CONFIGS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(resolve_name(name) for entry in STAGES.values() for name in entry.configs),
        *(entry.config for entry in STRATEGIES.values()),
        *(entry.config for entry in LABELLERS.values()),
    )
    if kind.__module__.partition(".")[0] in ("search", "trainer")
}
ENTRIES = [(kind, old, new) for kind, keys in RENAMED_KEYS.items() for old, new in keys.items()]


@pytest.mark.parametrize(("kind", "old", "new"), ENTRIES)
def test_an_old_key_is_answered_with_the_new_one(
    kind: str, old: str, new: str, tmp_path: Path
) -> None:
    kinds = (CONFIGS[kind], HeldOutConfig) if kind == "GroupRLConfig" else (CONFIGS[kind],)
    names = {field.name for one in kinds for field in dataclasses.fields(one)}
    assert new in names and old not in names
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({old: 1}))
    said = f"the key {old!r} is now called {new!r}"
    for words in (
        ["--config", str(recipe)],
        [f"--{old}", "1"],
        [f"--{old.replace('_', '-')}=1"],
    ):
        with pytest.raises(ValueError, match=said):
            parse_recipe(kinds, words)


def test_an_old_key_of_a_compared_strategy_is_answered() -> None:
    values = {"strategy": "mcts", "budgets": [2], "rollouts": True}
    with pytest.raises(ValueError, match="'rollouts' is now called 'expand_by_rollouts'"):
        read_strategy("tree", values, SearchSettings())


def test_a_key_that_was_renamed_elsewhere_stays() -> None:
    refuse_renamed_keys(["rollouts", "task", "pairs"], (SearchSettings, GroupRLConfig))
    refuse_renamed_keys(["expand_by_rollouts"], (MCTSConfig, ReportConfig))
