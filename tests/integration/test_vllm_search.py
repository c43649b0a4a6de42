"""Search on a real vLLM server, on the CPU. Needs an environment with vLLM alone (docs/engines.md):

THINKTREE_VLLM_PYTHON=/path/to/python python -m pytest tests/integration/test_vllm_search.py
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from scipy.stats import chisquare

from data.types import Outcome, Problem, Verdict
from rewards.models.opening import open_reward_model
from search.base import ChoiceRequest, SampleRequest, SearchResult
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from trainer.models.loading import (
    build_policy,
    load_policy,
    reward_model_from_policy,
    save_model,
)
from trainer.searching.engines import load_engine
from trainer.searching.server_engines import SearchEngineConfig

VLLM = os.environ.get("THINKTREE_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VLLM, reason="THINKTREE_VLLM_PYTHON names no Python with vLLM"),
]
SHAPE = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False,
    "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip
CPU = torch.device("cpu")
SAMPLES = 20_000


class VLLMProcess:
    """A vLLM server of one folder, which can be killed and started again."""

    def __init__(self, folder: Path, log: Path, *more: str) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.folder, self.log, self.more = folder, log, more
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        words = [
            *(str(VLLM), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder)),
            *("--port", str(self.port), "--dtype", "float32", "--enforce-eager"),
            *("--enable-prompt-tokens-details", "--max-num-seqs", "64", "--block-size", "32"),
            *self.more,
        ]
        on_cpu = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                words, env={**os.environ, **on_cpu}, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 240
        while True:
            said = self.log.read_text()[-3000:]
            assert self.process.poll() is None and time.monotonic() < deadline, said
            try:
                if httpx.get(f"{self.address}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(1)

    def kill(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(3)
    save_model(*build_policy(SHAPE, "numbers", 40), folder)
    return folder


@pytest.fixture(scope="module")
def server(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMProcess]:
    started = VLLMProcess(policy, tmp_path_factory.mktemp("log") / "server.log")
    started.wait()
    yield started
    started.kill()


@pytest.fixture
def engines(policy: Path, server: VLLMProcess) -> tuple[Any, Any]:
    """Our engine, and the one that asks the server."""
    here, _ = load_engine(str(policy), None, seed=5, device=CPU)
    config = SearchEngineConfig(engine="vllm_server", engine_url=server.address)
    there, _ = load_engine(str(policy), None, seed=5, device=CPU, engine=config)
    return here, there


def ask(engine: Any, request: Callable[[], Any]) -> Any:
    async def run() -> Any:
        try:
            return await request()
        finally:
            await engine.close()

    return asyncio.run(run())


def request_of(engine: Any, **fields: Any) -> SampleRequest:
    defaults = {"node": 0, "n": 1, "stop_at_step": False, "max_new_tokens": 24}
    return SampleRequest(prefix=engine.encode_prompt("3 4 7 12 -> 24\n"), **defaults | fields)


@pytest.mark.parametrize("stop_at_step", [False, True])
def test_greedy_texts_and_log_probabilities_are_ours(
    engines: tuple[Any, Any], stop_at_step: bool
) -> None:
    here, there = engines
    request = request_of(here, temperature=0.0, stop_at_step=stop_at_step)
    [expected] = here.sample_batch([("p", request)])
    found = ask(there, lambda: there.sample("p", request))
    assert found.samples[0].token_ids == expected.samples[0].token_ids
    assert found.samples[0].stop_reason == expected.samples[0].stop_reason
    assert found.samples[0].step_logprobs == pytest.approx(
        expected.samples[0].step_logprobs, abs=1e-4
    )
    assert found.usage == expected.usage


def test_samples_end_and_are_weighed_as_ours(engines: tuple[Any, Any]) -> None:
    """The log-probabilities of what the server drew, by our own model: at temperature 1."""
    here, there = engines
    request = request_of(here, n=32, temperature=0.7, stop_at_step=True)
    found = ask(there, lambda: there.sample("p", request))
    assert len({sample.stop_reason for sample in found.samples}) > 1
    for sample in found.samples:
        ids = torch.tensor([[*request.prefix, *sample.token_ids]])
        with torch.inference_mode():
            logits = here.model(input_ids=ids).logits[0, len(request.prefix) - 1 : -1]
        logprobs = torch.log_softmax(logits, dim=-1)
        own = sum(float(logprobs[i, token]) for i, token in enumerate(sample.token_ids))
        assert sample.logprob == pytest.approx(own, abs=1e-4)


def test_choices_are_ours(engines: tuple[Any, Any]) -> None:
    here, there = engines
    prefix = request_of(here).prefix
    request = ChoiceRequest(node=0, prefix=prefix, options=(5, 9, 3))
    [expected] = here.choice_batch([("p", request)])
    found = ask(there, lambda: there.choose("p", request))
    assert found.probabilities == pytest.approx(expected.probabilities, rel=1e-3)


def test_tokens_are_drawn_from_the_policy(engines: tuple[Any, Any]) -> None:
    here, there = engines
    request = request_of(here, n=SAMPLES, max_new_tokens=1)
    with torch.inference_mode():
        logits = here.model(input_ids=torch.tensor([request.prefix])).logits[0, -1].double()
    expected = torch.softmax(logits, dim=-1) * SAMPLES
    found = ask(there, lambda: there.sample("p", request))
    counts = Counter(sample.token_ids[0] for sample in found.samples)
    often = [token for token in range(len(expected)) if expected[token] >= 5]
    rest = SAMPLES - sum(counts[token] for token in often)
    few = SAMPLES - sum(float(expected[token]) for token in often)
    observed = [counts[token] for token in often] + ([rest] if few >= 5 else [])
    mean = [float(expected[token]) for token in often] + ([few] if few >= 5 else [])
    scale = sum(observed) / sum(mean)
    assert chisquare(observed, [value * scale for value in mean]).pvalue > 1e-3


# Longer than a block of the cache.
NUMBERS = " ".join(str(n) for n in range(1, 31))
PROBLEMS = [Problem(id=f"q{i}", prompt=f"{1 + i} {NUMBERS} -> 6\n", answer="") for i in range(12)]


def trees(engine: Any, problems: Sequence[Problem] = PROBLEMS, running: int = 64) -> Any:
    results: Any = run_searches(
        problems,
        bind(MCTSConfig(budgets=(8,), proposals=3)),
        engine=engine,
        scorer=None,
        verify=lambda problem, solution: Verdict(outcome=Outcome.UNVERIFIABLE),
        settings=SearchSettings(guidance="likelihood", max_step_tokens=16, max_new_tokens=60),
        max_concurrent=running,
    )
    return {result.problem.id: result for result in results}


def shape(found: dict[str, SearchResult]) -> Any:
    return {
        id: [(n.parent, n.token_ids, n.visit_count) for n in result.nodes]
        for id, result in sorted(found.items())
    }


def test_company_and_order_decide_nothing_and_a_child_finds_its_parent_in_the_cache(
    engines: tuple[Any, Any],
) -> None:
    _, there = engines
    expected = trees(there, running=1)
    cached = sum(result.served.cached_tokens for result in expected.values() if result.served)
    assert cached > 0
    for running, problems in ((8, PROBLEMS), (64, PROBLEMS[::-1])):
        assert shape(trees(there, problems, running)) == shape(expected)


def test_a_server_killed_in_mid_search_loses_nothing(
    engines: tuple[Any, Any], server: VLLMProcess
) -> None:
    _, there = engines
    expected = shape(trees(there))

    def restart() -> None:
        time.sleep(0.3)
        server.kill()
        server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    assert shape(trees(there)) == expected
    thread.join()
    server.wait()


@pytest.mark.parametrize("task", ["classify", "token_classify"])
def test_a_reward_model_gives_the_scores_that_it_gives_here(
    policy: Path, tmp_path: Path, task: str
) -> None:
    torch.manual_seed(1)
    model = reward_model_from_policy(str(policy))
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.config.thinktree_temperature, model.config.thinktree_bias = 1.7, 0.3
    save_model(model, load_policy(str(policy))[1], tmp_path / "prm")
    pooler = json.dumps({"task": task})
    server = VLLMProcess(
        tmp_path / "prm", tmp_path / "log", "--runner", "pooling", "--pooler-config", pooler
    )
    try:
        server.wait()
        values = {"convention": "vllm", "server": server.address, "task": task}
        (tmp_path / "prm.yaml").write_text(json.dumps(values | {"model": str(tmp_path / "prm")}))
        there = open_reward_model(str(tmp_path / "prm.yaml"), CPU).token_model
        here = open_reward_model(str(tmp_path / "prm"), CPU).token_model
        assert here is not None and there is not None
        sequences = [tuple(3 + (7 * i + j) % 30 for j in range(90 + i)) for i in range(8)]
        ends = [(40, 70, len(sequence) - 1) for sequence in sequences]
        (found, _), (expected, _) = there.score(sequences, ends), here.score(sequences, ends)
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
        said = httpx.get(f"{server.address}/metrics").text.splitlines()
        hits = [line for line in said if line.startswith("vllm:prefix_cache_hits_total")]
        cached = sum(float(line.split()[-1]) for line in hits)
        # Blocks of 32 tokens: each path's second step finds one block, its third step two.
        assert cached == (8 * (32 + 64) if task == "classify" else 0)
    finally:
        server.kill()
