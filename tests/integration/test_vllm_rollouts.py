"""PPO whose rollouts come from vLLM on the CPU, in the trainer and as a server, both brought each
cycle's weights. Needs an environment that has both (docs/scaling.md says how it is made):

THINKTREE_VLLM_PYTHON=/path/to/python python -m pytest tests/integration/test_vllm_rollouts.py
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.rollouts.files import read_rollouts

VLLM = os.environ.get("THINKTREE_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VLLM, reason="THINKTREE_VLLM_PYTHON names no Python with vLLM"),
]

ON_CPU = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def train(
    checkout: Any, smoke_run: Path, policy: Path, out: Path, engine: str, *more: str, launch: str
) -> list[dict[str, Any]]:
    """Metrics of three cycles whose steps are large: an engine that kept its first weights would
    soon be far off."""
    words = [
        *("--policy", str(policy), "--reward_model", str(smoke_run / "prm_2")),
        *("--data", str(smoke_run / "data")),
        *("--output_dir", str(out), "--cycles", "3", "--problems_per_cycle", "16"),
        *("--evaluation_problems", "16", "--micro_batch_size", "16", "--minibatches", "2"),
        *("--learning_rate", "3e-3", "--learning_rate_decay", "false", "--warmup_cycles", "0"),
        *("--record_rollouts", "true", "--rollout_engine", engine),
        *("--vllm_memory_share", "0.1", *more),
    ]
    stage = checkout.stage("train_ppo.py", "ppo.yaml", *words, accelerate=launch)
    checkout.run([str(VLLM), *stage[1:]], **ON_CPU)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def check(metrics: list[dict[str, Any]], out: Path) -> None:
    assert metrics[-1]["kl"] > 0.5  # nats a solution: the policy has moved,
    for row in metrics:  # and vLLM with it
        assert 0 < row["engine_gap"] < 0.02
        assert not any("nats per token" in warning for warning in row["warnings"])
        assert row["correction_mean"] == pytest.approx(1.0, abs=0.02)
    for rollouts in read_rollouts(out / "rollouts.jsonl").values():
        assert len(rollouts) == 64
        assert all(len(r.engine_logprobs) == len(r.response_ids) for r in rollouts)
    ledger = json.loads((out / "manifest.json").read_text())["usage"]["ledger"]
    assert ledger[0]["generated_tokens"] > 0


@pytest.mark.parametrize(
    ("launch", "more"),
    [("cpu", ()), ("cpu", ("--lora_rank", "8", "--learning_rate", "1e-2")), ("cpu_ddp", ())],
)
def test_vllm_in_the_trainer_samples_from_the_present_policy(
    launch: str, more: tuple[str, ...], smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    policy = smoke_run / "round_2"
    metrics = train(checkout, smoke_run, policy, out, "vllm_colocate", *more, launch=launch)
    check(metrics, out)
    if launch == "cpu" and not more:  # without vLLM: what it recorded teaches the same
        again = tmp_path / "again"
        words = json.loads((out / "manifest.json").read_text())["recipe"]
        keys = (
            *("policy", "reward_model", "data", "cycles", "problems_per_cycle", "minibatches"),
            *("evaluation_problems", "micro_batch_size", "learning_rate", "learning_rate_decay"),
            "warmup_cycles",
        )
        options = [part for key in keys for part in (f"--{key}", str(words[key]))]
        replay = ("--output_dir", str(again), "--replay", str(out / "rollouts.jsonl"))
        checkout.run(checkout.stage("train_ppo.py", "ppo.yaml", *options, *replay), **ON_CPU)
        rows = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
        for one, two in zip(metrics, rows, strict=True):
            for name in ("policy_loss", "value_loss", "engine_gap", "correction_mean"):
                assert two[name] == pytest.approx(one[name], abs=1e-4), name


@pytest.fixture
def untied(smoke_run: Path, tmp_path: Path) -> Path:
    """The policy with an output head of its own."""
    model: Any = AutoModelForCausalLM.from_pretrained(smoke_run / "round_2")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path / "untied")
    AutoTokenizer.from_pretrained(smoke_run / "round_2").save_pretrained(tmp_path / "untied")
    return tmp_path / "untied"


@pytest.fixture
def server(untied: Path, checkout: Any, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [
        *(str(VLLM), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(untied), "--port", str(port), "--dtype", "float32"),
        *("--enforce-eager", "--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"),
    ]
    environment = checkout.environment(VLLM_SERVER_DEV_MODE="1", **ON_CPU)
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 240
        while True:
            said = (tmp_path / "server.log").read_text()[-3000:]
            assert process.poll() is None and time.monotonic() < deadline, said
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(1)
        yield address
        process.terminate()
        process.wait(timeout=60)


def test_a_vllm_server_samples_from_the_present_policy(
    server: str, untied: Path, smoke_run: Path, checkout: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    more = ("--vllm_server_url", server)
    metrics = train(checkout, smoke_run, untied, out, "vllm_server", *more, launch="cpu_ddp")
    check(metrics, out)
    assert max(row["engine_gap_max"] for row in metrics) < 1e-3  # both in float32
    assert not (out / "served").exists()
