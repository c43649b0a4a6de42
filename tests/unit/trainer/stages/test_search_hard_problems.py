"""The search stage with `labels` searches what the policy of the label stage did not solve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.labellers.by_name import LabelSettings
from search.labellers.monte_carlo import MonteCarloConfig
from search.settings import SearchSettings
from search.strategies.solutions import SolutionsConfig
from tests.unit.trainer.conftest import Workshop
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.label import LabelStageConfig, run_label
from trainer.stages.search import TreesConfig, run_trees


@pytest.fixture
def labels(ppo: Workshop) -> Path:
    """Labels of the first 6 of the 8 problems of train, by a random policy."""
    policy, data = str(ppo.folder / "policy"), str(ppo.folder / "data")
    stage = LabelStageConfig(policy=policy, data=data, num_problems=6, verifier="finishes")
    runtime = RuntimeConfig(output_dir=str(ppo.folder / "label"), wandb=False)
    run_label(runtime, stage, LabelSettings(max_new_tokens=12), MonteCarloConfig(solutions=4))
    return ppo.folder / "label"


def solved_of(labels: Path) -> dict[str, list[bool]]:
    """The verdicts on each problem's distinct solutions."""
    found: dict[str, list[bool]] = {}
    for line in (labels / "labels.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["problem_id"], []).append(row["labels"][-1] == 1.0)
    return found


def search(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "policy": str(folder / "policy"), "data": str(folder / "data"), "strategy": "solutions",
        "verifier": "finishes", "labels": [str(folder / "label")],
    }  # fmt: skip
    out = folder / "search"
    runtime = RuntimeConfig(output_dir=str(out), wandb=False)
    settings = SearchSettings(max_new_tokens=4, answer="first")
    run_trees(runtime, TreesConfig(**(values | changes)), settings, SolutionsConfig())
    return out


def searched(out: Path) -> list[str]:
    lines = (out / "trees.jsonl").read_text().splitlines()
    return [json.loads(line)["problem"]["id"] for line in lines]


def test_only_unsolved_problems_are_searched(ppo: Workshop, labels: Path) -> None:
    solved = solved_of(labels)
    unsolved = [name for name, verdicts in solved.items() if not any(verdicts)]
    assert 0 < len(unsolved) < len(solved) == 6
    out = search(ppo.folder, most_solved=0.0)
    assert searched(out) == unsolved
    manifest = read_manifest(out)
    metrics = manifest["metrics"]
    assert metrics["problems"] == len(unsolved)
    assert (metrics["left_out_solved"], metrics["left_out_unlabelled"]) == (6 - len(unsolved), 2)
    [warning] = metrics["warnings"]
    assert f"{len(unsolved)} problems are searched, fewer than num_problems (2,000)" in warning
    fingerprint = read_manifest(labels)["fingerprint"]
    assert manifest["inputs"]["labels_0"] == {"source": "../label", "fingerprint": fingerprint}


def test_num_problems_counts_what_is_left(ppo: Workshop, labels: Path) -> None:
    unsolved = [name for name, verdicts in solved_of(labels).items() if not any(verdicts)]
    out = search(ppo.folder, most_solved=0.0, num_problems=1)
    assert searched(out) == unsolved[:1]
    assert "warnings" not in read_manifest(out)["metrics"]


def test_without_labels_nothing_is_left_out(ppo: Workshop) -> None:
    out = search(ppo.folder, labels=[], num_problems=3)
    assert searched(out) == [problem.id for problem in ppo.problems[:3]]
    assert "left_out_solved" not in read_manifest(out)["metrics"]


def test_nothing_left_is_an_error(ppo: Workshop, labels: Path) -> None:
    said = r"no problem is left to search: of 2 problems 0 were solved .*, and 2 have no labels"
    with pytest.raises(ValueError, match=said):
        search(ppo.folder, skip=6)
    assert not (ppo.folder / "search" / "manifest.json").exists()


def test_mistakes_name_their_key(ppo: Workshop) -> None:
    with pytest.raises(ValueError, match=r"most_solved is 0\.5, but labels is empty"):
        search(ppo.folder, labels=[], most_solved=0.5)
    with pytest.raises(ValueError, match=r"most_solved is 50; allowed: from 0 to 1"):
        search(ppo.folder, most_solved=50)
    with pytest.raises(ValueError, match=r"labels is '.*label': there is no such file or folder"):
        search(ppo.folder)
    with pytest.raises(ValueError, match=r"'.*data' is not a complete stage folder"):
        search(ppo.folder, labels=[str(ppo.folder / "data")])
    assert not (ppo.folder / "search").exists()
