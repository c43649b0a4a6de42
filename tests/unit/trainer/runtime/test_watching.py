"""A stage that hangs leaves its stacks behind, one that runs out of memory its advice, and every
stage what it used: each in a process of its own, as in a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from data.settings import ROOT
from trainer.runtime.ledger import LedgerEntry
from trainer.runtime.out_of_memory import advice, is_out_of_memory
from trainer.runtime.resources import measure, peak_flops

STAGE = """
import sys, time
from dataclasses import dataclass
import torch
from data.types import ModelUsage, Usage
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import run_stage
from trainer.runtime.watchdog import WATCHDOG

@dataclass(frozen=True, kw_only=True)
class Settings:
    per_device_train_batch_size: int = 6
    gradient_checkpointing: bool = False
    lora_rank: int = 8

def never_ends():
    time.sleep(2.2)

def at_work():
    for _ in range(12):
        time.sleep(0.1)
        WATCHDOG.progress()

with run_stage(
    "toy", RuntimeConfig(output_dir=sys.argv[1], hang_seconds=0.7, wandb=False), [Settings()], {}
) as record:
    at_work()
    record.search(Usage(policy=ModelUsage(positions=50, flops=3e6)))
    record.training("policy", 150, 7e6)
    if sys.argv[2] == "hang":
        never_ends()
    elif sys.argv[2] == "memory":
        torch.empty(2**60)
"""


def stage(folder: Path, how: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", STAGE, str(folder), how],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout


def resources(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())["extra"]["resources"]


@pytest.mark.slow
def test_a_hang_leaves_its_stacks_and_goes_on_to_say_what_it_used(tmp_path: Path) -> None:
    status, said = stage(tmp_path / "out", "hang")
    assert status == 0
    assert said.count("Timeout (0:00:00.700000)!") == 3, said  # after 0.7, 1.4 and 2.1 seconds
    assert "in never_ends" in said and "in at_work" not in said
    used = resources(tmp_path / "out")
    assert (used["positions"], used["flops"], used["processes"]) == (200, 1e7, 1)
    assert used["positions_per_second"] == pytest.approx(200 / used["seconds"])
    assert used["flops_utilisation"] == pytest.approx(
        1e7 / used["seconds"] / used["peak_flops_per_second"]
    )
    assert used["device"] == "cpu" and used["peak_device_bytes"] is None
    assert 5e7 < used["peak_resident_bytes"] < 4e9


@pytest.mark.slow
def test_running_out_of_memory_names_the_settings_and_a_second_try_no_rates(
    tmp_path: Path,
) -> None:
    """A real allocation that cannot be had. What a first attempt did is in no second one's time."""
    status, said = stage(tmp_path / "out", "memory")
    assert status == 1
    assert "can't allocate memory" in said
    assert "per_device_train_batch_size is 6: lower it; gradient_accumulation_steps" in said
    assert "gradient_checkpointing is false: set true: activations" in said
    assert "lora_rank is" not in said  # it is on already
    assert not (tmp_path / "out/manifest.json").exists()
    assert stage(tmp_path / "out", "work")[0] == 0
    used = resources(tmp_path / "out")
    assert used["flops"] == 1e7 and used["seconds"] > 0
    assert used["positions_per_second"] is used["flops_utilisation"] is None


def test_advice_says_what_is_left_to_do() -> None:
    settings = {"micro_batch_size": 1, "max_new_tokens": 512, "bf16": True}
    settings["gradient_checkpointing"] = True
    said = advice(settings, {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"})
    lines = [line.strip().partition(":")[0] for line in said.splitlines()[1:-1]]
    assert lines == ["max_new_tokens is 512", "offload_optimizer_device is none"]


def test_other_errors_are_none_of_its_business() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_peaks_are_those_of_the_data_sheets() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("some other device") is None
    assert 1e9 < (peak_flops("cpu") or 0) < 1e13
    entry = LedgerEntry(model="policy", kind="search", flops=5e12, positions=10)
    assert measure([entry], 2.0, 4, resumed=False).flops_per_second == 2.5e12
