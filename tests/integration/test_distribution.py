"""One combination of the matrix in tests/benchmarks/distribution.py for each kind of launch: the
losses and weights of one process, and a kill in the middle of a save that changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForTokenClassification

pytestmark = pytest.mark.slow


def matrix(checkout: Any, folder: Path, *words: str) -> list[list[str]]:
    """The table's rows; the test fails unless every row is as it should be."""
    command = [sys.executable, "tests/benchmarks/distribution.py", "--folder", str(folder), *words]
    lines = checkout.run(command).splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    assert not [line for line in table if "WRONG" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_ddp_trains_one_model_also_when_killed_while_saving(checkout: Any, tmp_path: Path) -> None:
    words = ("--trainers", "sft", "--launches", "cpu_ddp", "--kills", "saving")
    whole, killed = matrix(checkout, tmp_path, *words)
    assert whole[:3] == ["sft", "cpu_ddp", ""] and max(map(float, whole[3:5])) <= 1e-4
    assert killed[:5] == ["sft", "cpu_ddp", "saving", "0.0e+00", "0.0e+00"]
    assert "resumed after step 2" in killed[5] and "random state" in killed[5]


def test_zero3_trains_one_model(checkout: Any, tmp_path: Path) -> None:
    words = ("--trainers", "prm", "--launches", "cpu_zero3", "--kills")
    [whole] = matrix(checkout, tmp_path, *words)
    assert whole[:3] == ["prm", "cpu_zero3", ""] and max(map(float, whole[3:5])) <= 1e-4
    # What ZeRO-3 leaves behind is a plain folder.
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm-cpu_zero3")
    assert model.config.id2label == {0: "incorrect", 1: "correct"}
    assert all(parameter.numel() for parameter in model.parameters())
