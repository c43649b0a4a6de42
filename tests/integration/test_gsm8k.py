"""GSM8K's real files through SFT, labels, PRM, search, expert iteration, evaluation and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
RECIPE = "recipes/gsm8k/smoke.yaml"
STAGES = ("data", "sft", "label_1", "prm_1", "search_1", "round_1", "evaluate", "report")
BAD_ROWS = (
    b'{"question": "How many?"}',
    b'{"question": 5, "answer": "1\\n#### 1"}',
    b'{"question": "How many?", "answer": "I do not say"}',
    b'{"question": "\xff", "answer": "1\\n#### 1"}',
)


@pytest.fixture(scope="module")
def files(published_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The published training rows with four bad ones among them, and the test rows."""
    train = tmp_path_factory.mktemp("rows") / "train.jsonl"
    rows = (published_data / "gsm8k_train.jsonl").read_bytes().splitlines()
    train.write_bytes(b"\n".join([*rows[:100], *BAD_ROWS, *rows[100:]]) + b"\n")
    return train, published_data / "gsm8k_test.jsonl"


def sources(files: tuple[Path, Path]) -> list[str]:
    return ["--set", f"data.train_rows={files[0]}", "--set", f"data.test_rows={files[1]}"]


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((folder / stage / "manifest.json").read_text())


@pytest.fixture(scope="module")
def run(checkout: Any, files: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("gsm8k") / "run"
    words = [*checkout.forked_recipe(folder, RECIPE), *sources(files)]
    printed = checkout.run(words, WANDB_MODE="offline")
    return folder, printed


def test_every_stage_runs_on_real_rows(run: tuple[Path, str]) -> None:
    folder, _ = run
    assert all((folder / stage / "manifest.json").is_file() for stage in STAGES)
    results = json.loads((folder / "results.json").read_text())
    rows = {(r["policy"], r["strategy"], r["budget"]): r for r in results["accuracy"]}
    assert {("sft", "greedy", 1), ("round_1", "mcts", 2), ("round_1", "best_of_n", 4)} <= set(rows)
    assert all(0 <= r["low"] <= r["value"] <= r["high"] <= 1 for r in rows.values())
    first = json.loads((folder / "data" / "test.jsonl").read_text().split("\n")[0])
    assert first["prompt"].startswith("Question: ") and first["prompt"].endswith("\nAnswer:\n")
    assert (folder / "report.html").stat().st_size > 10_000


def test_bad_rows_are_named_and_counted(run: tuple[Path, str], files: tuple[Path, Path]) -> None:
    folder, _ = run
    assert manifest(folder, "data")["metrics"]["bad_rows"] == 4
    log = (folder / "logs" / "data.log").read_text()
    for line, reason in (
        (101, "answer is absent"),
        (102, "question is '5'; it must be text"),
        (103, "answer has no final answer"),
        (104, "is not UTF-8 text: byte 15 is 0xff"),
    ):
        assert f"left out: {files[0]}, line {line}: {reason}" in log
    assert "4 bad rows left out, 10 allowed" in log


def test_too_many_bad_rows_fail_the_run(checkout: Any, files: Any, tmp_path: Path) -> None:
    words = [*checkout.forked_recipe(tmp_path / "run", RECIPE), *sources(files)]
    printed = checkout.run([*words, "--set", "data.max_bad_rows=3"], fails=True)
    assert "4 rows are bad, and max_bad_rows is 3" in printed


def test_verdicts_and_contamination_are_in_the_manifests(run: tuple[Path, str]) -> None:
    folder, _ = run
    metrics = manifest(folder, "label_1")["metrics"]
    judged = sum(count for name, count in metrics.items() if name.startswith("verdicts/math/"))
    assert judged == metrics["verdicts/math/timed_out"] + sum(
        metrics.get(f"verdicts/math/{outcome}", 0)
        for outcome in ("correct", "wrong", "unverifiable")
    )
    evaluated = manifest(folder, "evaluate")["metrics"]
    assert evaluated["verdicts/math/timed_out"] == 0
    assert evaluated.get("verdicts/math/wrong", 0) + evaluated["verdicts/math/unverifiable"] > 20
    assert {"contamination/exact", "contamination/near"} <= set(manifest(folder, "data")["metrics"])


def test_the_full_recipe_is_planned(checkout: Any, tmp_path: Path) -> None:
    words = checkout.forked_recipe(tmp_path / "full", "recipes/gsm8k/full.yaml")
    printed = checkout.run([*words, "--dry-run", "--set", "sft.model=org/a-real-model"])
    assert printed.count("accelerate launch") == len(STAGES)
    assert "--model org/a-real-model" in printed
