"""Training on pairs with real processes: two take the steps of one, and a kill changes nothing."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.processes import kill_family
from trainer.models.loading import build_policy, save_model

pytestmark = pytest.mark.slow


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A tiny policy and 64 pairs of several weights."""
    torch.manual_seed(3)
    model = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    save_model(*build_policy(model, "numbers", 40), tmp_path / "policy")
    rows = [
        {
            "prompt": f"1 {i % 7 + 1} -> 5\n", "chosen": f"{i % 9} + 1 = 2 |\n",
            "rejected": f"{i % 5} * 2 = {i % 3} |\n", "weight": 1 / (1 + i % 4),
        }
        for i in range(64)
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "--model", str(tmp_path / "policy"), "--preference_pairs", str(tmp_path / "pairs.jsonl"),
        "--max_steps", "60", "--save_steps", "5", "--warmup_steps", "0", "--wandb", "false",
    ]  # fmt: skip


def test_two_processes_and_a_killed_one_train_one_model(
    checkout: Any, words: list[str], tmp_path: Path
) -> None:
    losses: dict[str, list[float]] = {}
    for launch, batch in (("cpu", "8"), ("cpu_ddp", "4")):
        more = ["--per_device_train_batch_size", batch, "--logging_steps", "1"]
        more += ["--output_dir", str(tmp_path / launch)]
        command = checkout.launched("train_prm.py", "prm_pairs.yaml", launch, *words, *more)
        printed = checkout.run(command, OMP_NUM_THREADS="1")
        losses[launch] = [float(found) for found in re.findall(r"'loss': '([\d.e-]+)'", printed)]
    assert len(losses["cpu"]) == 60 and losses["cpu"][-1] < losses["cpu"][0]
    assert losses["cpu_ddp"][:5] == pytest.approx(losses["cpu"][:5], rel=2e-3)
    positions = [
        json.loads((tmp_path / launch / "manifest.json").read_text())["usage"]["ledger"][0]
        for launch in losses
    ]
    assert positions[0] == positions[1]

    killed = tmp_path / "killed"
    command = checkout.forked_stage(
        "train_prm.py", "prm_pairs.yaml", *words, "--per_device_train_batch_size", "8",
        "--logging_steps", "1", "--output_dir", str(killed),
    )  # fmt: skip
    child = checkout.start(command, OMP_NUM_THREADS="1")
    deadline = time.monotonic() + 120
    while not any(killed.glob("checkpoint-*/checkpoint_manifest.json")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    kill_family(child)
    assert not (killed / "manifest.json").exists()
    printed = checkout.run(command, OMP_NUM_THREADS="1")
    assert len(re.findall(r"'loss': ", printed)) <= 55  # it went on from a checkpoint
    name = "model.safetensors"
    assert (killed / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes()
