"""Run the example of a new strategy in CONTRIBUTING, exactly as it is printed there."""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from data.types import Usage
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import STRATEGIES, StrategyEntry, bind
from trainer.runtime.command_line import parse_with_strategy
from trainer.stages.search import TreesConfig

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"


def test_one_file_one_entry_one_line(
    toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    section = text.partition("- **A search strategy**")[2].partition("\n- **")[0]
    blocks = re.findall(r"  ```(?:python|yaml)\n(.*?)  ```", section, re.DOTALL)
    code, entry, line = (textwrap.dedent(block) for block in blocks)
    path = tmp_path / "greedy_steps.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("greedy_steps", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "greedy_steps", module)
    spec.loader.exec_module(module)
    added = eval(f"{{{entry}}}", {**vars(module), "StrategyEntry": StrategyEntry})
    for name, value in added.items():
        monkeypatch.setitem(STRATEGIES, name, value)
    recipe = tmp_path / "recipe.yaml"
    given = "policy: p\ndata: d\nbudgets: [30]\nverifier: countdown\nmax_new_tokens: 64\n"
    recipe.write_text(given + line)
    _, settings, config = parse_with_strategy(
        (TreesConfig, SearchSettings), ["--config", str(recipe)]
    )

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 3 else {"a": 0.6, "b": 0.4}

    [result] = run_searches(
        [toys.problem("p", "bbb")], bind(config), engine=toys.Engine(letters),
        scorer=toys.Scorer(lambda text: text.count("b") / 3), verify=toys.verify,
        settings=settings,
    )  # fmt: skip
    assert result.snapshots[0].answer == "bbb"
    assert result.usage.policy.sequences == 4 * 30
    assert sum((node.usage for node in result.nodes), Usage()) == result.usage
