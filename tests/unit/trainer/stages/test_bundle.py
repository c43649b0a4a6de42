"""Bundles of a tiny real run: the chosen levels, the copied models, and `solve` with a bundle."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rewards.verifiers.by_name import ANSWER_FORMATS
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from tests.unit.bundles import (
    MCTS,
    SETTINGS,
    accuracy_row,
    export_bundle,
    write_measured_run,
)
from trainer.evaluation.effort_levels import choose_levels, searches_of_comparison
from trainer.measures.results import StrategyComparison
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.config import RuntimeConfig
from trainer.searching.bundles import read_bundle, words_of_the_bundle
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.solve import SolveConfig, solve
from trainer.serving.config import SearchServerConfig
from trainer.serving.service import load_service
from trainer.stages.bundle import BundleConfig, run_bundle


@pytest.fixture(scope="module")
def bundle(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(tmp_path_factory.mktemp("run"), tiny_policy)


def test_levels_are_of_the_searches_that_no_cheaper_one_equals(bundle: Path) -> None:
    """By FLOPs: greedy 0.2, majority 0.25, best of 2 0.3, tree 0.35 and 0.5; the oracle and the
    control are no searches to run. The geometric mean of 1e6 and 4e7 is 6.3e6: 5e6 is nearest."""
    read = read_bundle(bundle)
    levels = [(v.name, v.strategy, v.measured_as, v.budget, v.accuracy) for v in read.levels]
    assert levels == [
        ("low", "solutions", "greedy", 1, 0.2),
        ("medium", "mcts", "mcts", 1, 0.35),
        ("high", "mcts", "mcts", 4, 0.5),
    ]
    low, medium, high = read.levels
    assert low.strategy_config() == SolutionsConfig(budgets=(1,))
    assert low.search_settings() == SearchSettings(
        answer="first", temperature=0.0, max_new_tokens=20
    )
    assert high.strategy_config() == replace(MCTS, budgets=(4,))
    assert medium.search_settings() == SETTINGS
    assert (high.problems, high.split, high.generated_tokens) == (100, "test", 40.0)
    assert (read.run, read.seed, read.task, read.template) == (
        "tiny-run", 7, "countdown", "{problem}\n",
    )  # fmt: skip


def test_the_folder_holds_the_models_alone_and_a_card(bundle: Path) -> None:
    names = {path.name for path in (bundle / "policy").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not (bundle / "policy" / "metrics.jsonl").exists()
    card = (bundle / "README.md").read_text()
    assert "| high | mcts | 4 | never | 50.0 % [40.0, 60.0] | 100 | 40.0 | not measured" in card
    assert "`policy`" in card and "verifier `countdown`: one step per line" in card
    moved = bundle.parent / "moved"
    bundle.rename(moved)
    try:
        assert read_bundle(moved).policy == str(moved / "policy")
    finally:
        moved.rename(bundle)


def test_a_level_may_be_named_if_it_was_measured(
    tiny_policy: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = write_measured_run(tmp_path, tiny_policy)
    runtime = RuntimeConfig(output_dir=str(tmp_path / "out"), wandb=False)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="no line in ANSWER_FORM"):
        patch.delitem(ANSWER_FORMATS, "countdown")
        run_bundle(runtime, BundleConfig(evaluation=str(stage)))
    with pytest.raises(ValueError, match="high is 'mcts:16', which was not measured; did you mean"):
        run_bundle(runtime, BundleConfig(evaluation=str(stage), high="mcts:16"))
    with pytest.raises(ValueError, match=r"policy is 'sft', of which .* policies: control, policy"):
        run_bundle(runtime, BundleConfig(evaluation=str(stage), policy="sft"))
    with pytest.raises(ValueError, match=r"holds no evaluation.json and no comparison.json, and 0"):
        run_bundle(runtime, BundleConfig(evaluation=str(tmp_path / "data")))
    assert not (tmp_path / "out").exists()
    same = BundleConfig(evaluation=str(tmp_path), medium="mcts:4")
    run_bundle(runtime, same)
    assert read_bundle(tmp_path / "out").level("medium").budget == 4
    assert "warning: the levels are greedy:1, mcts:4, mcts:4" in capsys.readouterr().out
    (tmp_path / "policy" / "config.json").write_text("{}")
    other = RuntimeConfig(output_dir=str(tmp_path / "other"), wandb=False)
    with pytest.raises(ValueError, match="is not the model that was measured any more"):
        run_bundle(other, same)


def test_levels_of_a_comparison_keep_their_stop_score() -> None:
    strategies = {
        "early": {"strategy": "mcts", "budgets": [4, 8], "stop_score": 0.9},
        "oracle_tree": {"strategy": "mcts", "budgets": [4], "guidance": "oracle"},
    }
    rows = tuple(
        accuracy_row(*values)
        for values in (("best_of_n", 2, 0.3, 1e6), ("early", 4, 0.5, 2e6), ("early", 8, 0.6, 3e6),
                       ("oracle_tree", 4, 0.9, 1e6))
    )  # fmt: skip
    comparison = StrategyComparison(
        split="validation", accuracy=rows, equal_flops=(), growth=(), matches=(),
        target_best_of_n=2, margin=0.02,
    )  # fmt: skip
    searches = searches_of_comparison(comparison, {"strategies": strategies}, "policy")
    assert [search.name for search in searches] == ["best_of_n:2", "early:4", "early:8"]
    levels = choose_levels(searches, {"low": None, "medium": None, "high": None})
    assert [level.search_settings().stop_score for level in levels] == [0.0, 0.9, 0.9]
    assert levels[2].strategy_config() == MCTSConfig(budgets=(8,))


def test_solve_takes_a_bundle_and_an_effort(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--bundle", str(bundle), "--effort", "high", "--problem", "3 4 7 -> 11", "--quiet"]
    words = words_of_the_bundle([*given, "true", "--max_depth", "2"])
    kinds = (SolveConfig, SearchSettings, SearchEngineConfig)
    config, settings, engine, strategy = parse_with_strategy(kinds, words)
    assert strategy == replace(MCTS, budgets=(4,))
    assert settings == replace(SETTINGS, max_depth=2)  # what the user gives comes last
    assert config.task == "countdown" and config.reward_model == str(bundle / "reward_model")
    [thought] = solve(config, settings, strategy, engine)
    assert thought.confidence is None or 0 <= thought.confidence <= 1
    assert "problem     3 4 7 -> 11" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--effort", "high"], "effort is 'high', but it needs bundle"),
        (["--bundle", "{bundle}", "--effort", "hihg"], "effort is 'hihg'; did you mean 'high'?"),
        (["--bundle", "{bundle}", "--model", "x"], "model is given, but the bundle decides it"),
        (["--bundle", "/nowhere"], "holds no bundle.json; scripts/export_bundle.py makes one"),
    ],
)
def test_wrong_bundles_and_efforts_are_named(bundle: Path, words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        words_of_the_bundle([word.format(bundle=bundle) for word in words])


def test_a_bundle_of_another_version_or_with_wrong_settings_is_refused(
    bundle: Path, tmp_path: Path
) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    content["levels"][1]["settings"]["temperatur"] = 1.0
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"bundle.json: level medium: .*temperatur"):
        read_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps(content | {"version": 2}))
    with pytest.raises(ValueError, match="the format is 'thinktree-bundle' 2, not"):
        read_bundle(tmp_path)


def test_a_judge_is_bundled_where_it_chooses(
    tiny_policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export_bundle(tmp_path, tiny_policy, judged=True)
    judge = str(bundle / "judge")
    assert read_bundle(bundle).judge == judge
    assert "| judge, which chooses the answer | `judge` |" in (bundle / "README.md").read_text()
    given = ["--bundle", str(bundle), "--problem", "3 4 7 -> 11", "--effort"]
    kinds = (SolveConfig, SearchSettings, SearchEngineConfig)
    config, settings, engine, strategy = parse_with_strategy(
        kinds, words_of_the_bundle([*given, "high", "--quiet", "true"])
    )
    assert (config.judge, settings.answer_guidance) == (judge, "judge")
    [thought] = solve(config, settings, strategy, engine)
    assert thought.answer is not None
    said = f"confidence  {thought.confidence:.2f} by judge" if thought.finished else "unfinished"
    assert said in capsys.readouterr().out
    # Greedy decoding has no use for it, and what the user gives comes last.
    assert "--judge" not in words_of_the_bundle([*given, "low"])
    words = words_of_the_bundle([*given, "high", "--answer_guidance", "prm"])
    assert "--judge" not in words and parse_with_strategy(kinds, words)[1].answer_guidance == "prm"
    with pytest.raises(ValueError, match="judge is given, but the bundle decides it"):
        words_of_the_bundle([*given, "high", "--judge", "x"])
    service = load_service(SearchServerConfig(bundle=str(bundle), device="cpu"), IN_PROCESS)
    assert service.searches.judge is not None
    asyncio.run(service.close())
    content = json.loads((bundle / "bundle.json").read_text())
    for without in (content | {"judge": None}, {k: content[k] for k in content if k != "judge"}):
        (bundle / "bundle.json").write_text(json.dumps(without))
        with pytest.raises(ValueError, match="level medium needs a judge, but the bundle has none"):
            load_service(SearchServerConfig(bundle=str(bundle), device="cpu"), IN_PROCESS)
    plain = tmp_path / "plain"
    plain.mkdir()
    low = {"low": "greedy:1", "medium": "greedy:1", "high": "greedy:1"}
    bundle = export_bundle(plain, tiny_policy, judged=True, **low)
    assert read_bundle(bundle).judge is None and not (bundle / "judge").exists()
