"""The gate keeps what is better and says why; evaluation reads rows back as written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data.types import StepLabels
from trainer.labels.label_files import read_labels
from trainer.measures.statistics import paired_p_value
from trainer.searching.trajectories import read_trajectories
from trainer.searching.workbench import Ranks
from trainer.stages.expert_iteration import verified_rollouts


def test_every_problem_goes_to_exactly_one_rank() -> None:
    problems = [object() for _ in range(11)]
    for world in (1, 2, 3, 8):
        shards = [Ranks(rank=r, world_size=world).shard(problems) for r in range(world)]  # type: ignore[arg-type]
        assert sorted(map(id, [p for shard in shards for p in shard])) == sorted(map(id, problems))
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_gate_refuses_a_worse_and_an_undecided_candidate() -> None:
    better = paired_p_value([True] * 60 + [False] * 40, [False] * 60 + [True] * 40)[0]
    equal = paired_p_value([True] * 50 + [False] * 50, [False] * 50 + [True] * 50)[0]
    worse = paired_p_value([True] * 40 + [False] * 60, [False] * 40 + [True] * 60)[0]
    assert better < 0.05 < equal < worse


def test_a_bad_label_row_names_file_line_and_reason(tmp_path: Path) -> None:
    row = {
        "problem_id": "p", "prompt": "?", "prompt_ids": [1], "completions": ["a"],
        "completion_ids": [[2]], "labels": [0.5], "counts": [2], "standard_errors": [0.2],
    }  # fmt: skip
    path = tmp_path / "labels.jsonl"
    del row["labels"]
    good = {**row, "labels": [1]}
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    rows = read_labels(path)
    assert next(rows).labels == (1.0,)
    with pytest.raises(ValueError, match=r"labels\.jsonl, line 2: .*labels"):
        next(rows)


def labelled(problem: str, ids: int, verdict: float) -> StepLabels:
    return StepLabels(
        problem_id=problem, prompt="?", prompt_ids=(1,), completions=("a", "b"),
        completion_ids=((ids,), (0,)), labels=(0.5, verdict), counts=(8, 1),
        standard_errors=(0.1, 0.2),
    )  # fmt: skip


def test_only_verified_rollouts_train_and_easy_problems_give_fewer() -> None:
    hard = [labelled("p", i, float(i == 2)) for i in range(8)]
    easy = [labelled("q", i, 1.0) for i in range(8)]
    none = [labelled("r", i, 0.0) for i in range(8)]
    rows = verified_rollouts([*hard, *easy, *none], max_per_problem=4, end_token_ids=frozenset({0}))
    assert [row.completion_ids for row in rows] == [(2, 0), (0, 0)]
    # A path of a tree may stop where a value of 1 is no verdict.
    unfinished = [replace(row, completion_ids=((1,), (7,))) for row in easy]
    assert verified_rollouts(unfinished, max_per_problem=4, end_token_ids=frozenset({0})) == []


def test_trajectories_keep_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    path.write_text(json.dumps({"prompt_ids": [1, 2], "completion_ids": [3]}) + "\n")
    [row] = read_trajectories(path)
    assert (row.prompt_ids, row.completion_ids) == ((1, 2), (3,))
    path.write_text('{"prompt_ids": [1]}\n')
    with pytest.raises(ValueError, match=r"trajectories\.jsonl, line 1: .*completion_ids"):
        read_trajectories(path)
