"""Which gates lie behind a policy: those of rounds and of gate stages, on both sides of a gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.slices import read_slices, write_slices
from trainer.runtime.gates import earlier_gates
from trainer.runtime.manifests import write_manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """sft, round_1 (gate 0..3), ppo; gates (4..7) of sft and ppo; sft_2 trains on from one."""
    (tmp_path / "data").mkdir()
    write_slices(
        tmp_path / "data", read_slices({"validation": {"a": 4, "b": 4}}), {"validation": 8}
    )
    write_manifest(tmp_path / "data", stage="data", recipe={}, seed=1)
    made(tmp_path, "sft", "sft", {})
    round_1 = {"gate_skip": 0, "gate_problems": 9, "gate_slice": "a"}  # more than the slice has
    made(tmp_path, "round_1", "expert_iteration", round_1, policy="sft", data="data")
    made(tmp_path, "ppo", "ppo", {}, policy="round_1", data="data")
    gate = {"gate_skip": 4, "gate_problems": 4, "gate_slice": None}
    made(tmp_path, "gate", "gate", gate, incumbent="sft", candidate="ppo", data="data")
    made(tmp_path, "turned", "gate", gate, incumbent="ppo", candidate="sft", data="data")
    made(tmp_path, "sft_2", "sft", {}, model="gate", data="data")
    return tmp_path


def made(run: Path, name: str, stage: str, recipe: dict[str, Any], **inputs: str) -> None:
    (run / name).mkdir()
    sources = {key: run / value for key, value in inputs.items()}
    write_manifest(run / name, stage=stage, recipe=recipe, seed=1, inputs=sources)


def found(run: Path, *policies: str, data: str = "data") -> list[tuple[str, int, int]]:
    folders = [str(run / policy) for policy in policies]
    gates = earlier_gates(folders, str(run / data))
    return [(folder.resolve().name, part.start, part.end) for folder, part in gates]


def test_the_walk_goes_through_the_policies_of_every_stage(run: Path) -> None:
    round_1 = ("round_1", 0, 4)
    assert found(run, "sft") == []
    assert found(run, "ppo") == [round_1]
    assert found(run, "gate") == [("gate", 4, 8), round_1]  # behind the candidate
    assert found(run, "turned") == [("turned", 4, 8), round_1]  # behind the incumbent
    assert found(run, "sft_2") == [("gate", 4, 8), round_1]
    assert found(run, "gate", "ppo") == [("gate", 4, 8), round_1]  # each gate once


def test_gates_on_other_data_do_not_count(run: Path) -> None:
    (run / "others").mkdir()
    (run / "others" / "validation.jsonl").write_text("\n")
    assert found(run, "gate", data="others") == []
    assert list(earlier_gates(["some/hub-id"], str(run / "data"))) == []
