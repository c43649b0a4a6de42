"""Thinking from the command line and trees as training data, with a real tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset

from data.tasks.countdown import make_problem
from data.types import Outcome, Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import STRATEGIES
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.strategies.solutions import SolutionsConfig
from search.trees.files import append_trees
from trainer.models.loading import save_model
from trainer.runtime.command_line import parse_with_strategy
from trainer.runtime.config import RuntimeConfig
from trainer.searching.engines import load_engine
from trainer.searching.solve import SolveConfig, solve
from trainer.stages.export import EXPORTS, ExportConfig, run_export

SETTINGS = SearchSettings(guidance="likelihood", max_step_tokens=6, max_new_tokens=20, max_depth=3)


@pytest.fixture(scope="module")
def folder(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy")
    save_model(*tiny_policy, path)
    return str(path)


@pytest.fixture(scope="module")
def trees(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine, _ = load_engine(folder, None, seed=1, device=torch.device("cpu"))
    problems = [make_problem((3, 4, 7), 11), make_problem((1, 2, 5), 8)]
    config = MCTSConfig(budgets=(8,), expand_by_rollouts=True)
    results = run_searches(
        problems, partial(search_mcts, config=config), engine=engine,
        scorer=None, verify=VERIFIERS["countdown"]().verify, settings=SETTINGS,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("trees") / "trees.jsonl"
    append_trees(path, results, "tiny")
    return path


# The strategy "thinking" writes words, which this vocabulary lacks. "routed" needs a router.
@pytest.mark.parametrize("strategy", [n for n in STRATEGIES if n not in ("thinking", "routed")])
def test_thinking_about_one_problem(
    folder: str, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SolveConfig(model=folder, strategy=strategy, problem="3 4 7 -> 11")
    arm = STRATEGIES[strategy].config(budgets=(4,))
    [thought] = solve(config, SETTINGS, arm)
    assert thought.generated_tokens > 0 and thought.flops > 0
    assert thought.answer is not None and "".join(thought.steps).strip() == thought.answer.strip()
    assert thought.verdict is None
    out, err = capsys.readouterr()
    assert "problem     3 4 7 -> 11" in out and "spent" in out
    assert "tokens" in err  # progress
    # One sample streams, with the lines that it has in the result.
    assert strategy != "solutions" or thought.steps[0].rstrip("\n") in err
    assert solve(config, SETTINGS, arm)[0].answer == thought.answer


def test_bf16_weights_need_a_cpu_that_computes_with_them(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.searching.engines.computes_in_bf16", lambda: False)
    with pytest.raises(ValueError, match="bf16 is true, but this CPU"):
        load_engine(folder, None, seed=1, device="cpu", bf16=True)
    monkeypatch.setattr("trainer.searching.engines.computes_in_bf16", lambda: True)
    config = SolveConfig(model=folder, problem="3 4 7 -> 11", quiet=True, bf16=True)
    settings = replace(SETTINGS, kept_prefixes_mib=2)
    [thought] = solve(config, settings, MCTSConfig(budgets=(3,)))
    assert thought.answer is not None and thought.generated_tokens > 0


class OneAnswerIsRight:
    """A verifier for which every solution of the problem with the answer 8 is correct."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        right = problem.answer == "8"
        return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


def test_a_file_of_problems_is_checked_and_written(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERIFIERS, "countdown", OneAnswerIsRight)
    path = tmp_path / "problems.jsonl"
    rows = [{"prompt": "3 4 7 -> 11\n", "answer": "11"}, {"prompt": "1 2 5 -> 8\n", "answer": "8"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    config = SolveConfig(
        model=folder, strategy="solutions", file=str(path), verifier="countdown", output=str(out),
        quiet=True,
    )  # fmt: skip
    thoughts = solve(config, SETTINGS, SolutionsConfig(budgets=(64,)))
    assert [thought.finished for thought in thoughts] == [True, True]
    assert [thought.verdict for thought in thoughts] == ["wrong", "correct"]
    written = {row["problem"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert {prompt: row["verdict"] for prompt, row in written.items()} == {
        rows[0]["prompt"]: "wrong",
        rows[1]["prompt"]: "correct",
    }
    assert [written[row["prompt"]]["answer"] for row in rows] == [t.answer for t in thoughts]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give either problem"),
        ({"problem": "x", "file": "y"}, "give either problem"),
        ({"problem": "x", "template": "y"}, "must hold {problem}"),
        ({"problem": "x", "verifier": "maths"}, "verifier is 'maths'; allowed: countdown"),
        ({"problem": "x", "verifier": "countdown"}, "verifier needs file"),
        ({"problem": "x", "task": "maths"}, "task is 'maths'; allowed: math, countdown"),
        ({"file": "x", "task": "math"}, "task and right_answer belong to a typed problem"),
        ({"problem": "x", "right_answer": "1"}, "right_answer needs task"),
    ],
)
def test_wrong_requests_are_named(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SolveConfig(model="m", **fields)  # pyright: ignore[reportArgumentType]


def test_missing_models_and_truths_are_named(folder: str) -> None:
    config = SolveConfig(model=folder, problem="3 4 7 -> 11", quiet=True)
    with pytest.raises(ValueError, match="guidance is 'prm', which needs a reward_model"):
        solve(config, SearchSettings(), MCTSConfig())
    oracle = SearchSettings(guidance="oracle", max_new_tokens=4, max_step_tokens=4)
    with pytest.raises(ValueError, match="oracle needs a file"):
        for seed in range(20):  # until some sample is finished and so asked about
            solve(
                SolveConfig(model=folder, problem="3 4 7 -> 11", quiet=True, seed=seed),
                oracle, SolutionsConfig(budgets=(64,)),
            )  # fmt: skip


def test_a_recipe_with_a_strategy_takes_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "strategy: beam\nmodel: m\nproblem: x\nmax_new_tokens: 9\nexpansions: 7\nmax_depth: 3\n"
    )
    words = ["--config", str(path), "--budgets", "2"]
    config, settings, beam = parse_with_strategy((SolveConfig, SearchSettings), words)
    assert (config.strategy, settings.max_depth, beam.expansions, beam.budgets) == (
        "beam", 3, 7, (2,),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"unknown key 'expansions'"):
        parse_with_strategy((SolveConfig, SearchSettings), [*words, "--strategy", "mcts"])
    with pytest.raises(ValueError, match="strategy is 'bean'; allowed"):
        parse_with_strategy((SolveConfig, SearchSettings), [*words, "--strategy=bean"])


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    words = ["--model", str(tmp_path / "round_2"), "--problem", "1 + 1"]
    with pytest.raises(
        ValueError,
        match=r"max_new_tokens is not given, and .*round_2' is no folder .*: correct its name",
    ):
        parse_with_strategy((SolveConfig, SearchSettings), words)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_every_export_is_a_data_set(
    trees: Path, folder: str, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = ExportConfig(
        trees=str(trees.parent), verifier="countdown", kinds=tuple(EXPORTS), policy=folder,
        min_visits=1, min_gap=0.0,
        min_rate=0.0, max_rate=1.0, format=format,
    )  # fmt: skip
    run_export(RuntimeConfig(output_dir=str(tmp_path / "out")), config)
    kind = "json" if format == "jsonl" else "parquet"
    for name in EXPORTS:
        if name in ("best_paths", "step_pairs", "solution_pairs"):
            continue  # an untrained policy solves nothing
        files = str(tmp_path / "out" / f"{name}.{format}")
        rows = load_dataset(kind, data_files=files, split="train", cache_dir=str(tmp_path / "c"))
        assert len(rows) > 0
    assert {"prompt", "chosen", "rejected"} <= set(_columns(tmp_path, "step_preferences", format))
    assert {"prompt", "completions", "labels"} <= set(_columns(tmp_path, "step_labels", format))


def _columns(tmp_path: Path, name: str, format: str) -> list[str]:
    files = str(tmp_path / "out" / f"{name}.{format}")
    kind = "json" if format == "jsonl" else "parquet"
    rows = load_dataset(kind, data_files=files, split="train", cache_dir=str(tmp_path / "c"))
    return list(rows.column_names)


def test_a_tree_of_another_version_names_file_and_line(trees: Path, tmp_path: Path) -> None:
    first, second = trees.read_text().splitlines()
    bad = tmp_path / "trees.jsonl"
    bad.write_text(first + "\n" + second.replace('"version":2', '"version":1') + "\n")
    config = ExportConfig(trees=str(bad), verifier="countdown", kinds=("nodes",))
    with pytest.raises(ValueError, match=r"trees\.jsonl, line 2: the row is not a thinktree-tree"):
        run_export(RuntimeConfig(output_dir=str(tmp_path / "out")), config)
    with pytest.raises(ValueError, match="kinds holds 'best'; allowed: best_paths"):
        ExportConfig(trees="x", verifier="math", kinds=("best",))
    with pytest.raises(ValueError, match="step_labels', which needs policy"):
        ExportConfig(trees="x", verifier="math", kinds=("step_labels",))
