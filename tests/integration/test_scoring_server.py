"""The scoring server as a process of its own: many connections, and a death in mid-search."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import torch

from data.types import Outcome, Problem, Verdict
from rewards.models.opening import open_reward_model
from rewards.server.client import ScoringClient, ServerConfig
from search.base import ScoreRequest, ScoreResult
from search.batcher import run_searches
from search.journal import Journal
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from trainer.models.loading import build_policy, reward_model_from_policy, save_model
from trainer.searching.engines import load_engine

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CONTEXT = 96
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}
REQUESTS, CONNECTIONS = 10_000, 200


class ServerProcess:
    """`scripts/serve_prm.py` on one port, started and killed."""

    def __init__(self, checkout: Any, reward_model: Path, log: IO[bytes]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._checkout = checkout
        self._words = ["--reward_model", str(reward_model), "--port", str(self.port)]
        self._log = log
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "scripts/serve_prm.py", *self._words],
            cwd=self._checkout.root,
            env=self._checkout.environment(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    policy, tokenizer = build_policy(TINY, "numbers", 40)
    save_model(policy, tokenizer, root / "policy")
    save_model(reward_model_from_policy(str(root / "policy")), tokenizer, root / "prm")
    return root


@pytest.fixture(scope="module")
def server(
    checkout: Any, folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        server = ServerProcess(checkout, folders / "prm", file)
        try:
            yield server
        finally:
            server.kill()


def test_ten_thousand_requests_of_two_hundred_connections(
    server: ServerProcess, folders: Path
) -> None:
    """Each is answered in its place with what the model here says, to the bit; one of them, too
    long, is refused alone."""
    draw = random.Random(5)
    local = open_reward_model(str(folders / "prm"), CPU)
    assert local.token_model is not None
    lengths = [draw.randint(3, 60) for _ in range(REQUESTS)]
    sequences = [[draw.randrange(local.vocab_size) for _ in range(n)] for n in lengths]
    ends = [sorted({draw.randrange(n), n - 1}) for n in lengths]
    scores, usage = local.token_model.score(sequences, ends)
    too_long = 4321
    sequences[too_long] = [1] * (CONTEXT + 1)

    posts: list[range] = []
    while not posts or posts[-1].stop < REQUESTS:
        start = posts[-1].stop if posts else 0
        posts.append(range(start, min(REQUESTS, start + draw.randint(1, 9))))
    draw.shuffle(posts)

    async def ask_all() -> dict[int, Any]:
        results: dict[int, Any] = {}
        async with httpx.AsyncClient(
            base_url=server.address, timeout=60, limits=httpx.Limits(max_connections=CONNECTIONS)
        ) as http:

            async def connection(mine: Sequence[range]) -> None:
                for post in mine:
                    body = [{"token_ids": sequences[i], "step_ends": ends[i]} for i in post]
                    response = await http.post("/score", json={"requests": body})
                    assert response.status_code == (207 if too_long in post else 200)
                    results.update(zip(post, response.json()["results"], strict=True))

            await asyncio.gather(*(connection(posts[i::CONNECTIONS]) for i in range(CONNECTIONS)))
        return results

    ScoringClient(ServerConfig(server=server.address, wait_seconds=60))  # until it is ready
    results = asyncio.run(ask_all())
    refused = results.pop(too_long)
    assert (refused["status"], refused["length"], refused["limit"]) == (413, CONTEXT + 1, CONTEXT)
    assert len(results) == REQUESTS - 1
    for i, result in results.items():
        assert result["scores"] == scores[i], i
        assert result["usage"] == vars(usage[i]), i
    health = httpx.get(f"{server.address}/health").json()
    assert health["answered"] == REQUESTS and health["waiting"] == 0
    assert health["batches"] < len(posts)  # connections share them


class Interrupted:
    """A scorer whose server is stopped before the call `at`, killed while the call is on its way,
    and started again."""

    shares_trunk = False

    def __init__(self, scorer: Any, server: ServerProcess, at: int) -> None:
        self.scorer, self.server, self.at = scorer, server, at
        self.calls = 0

    def prefix_flops(self, length: int) -> float:
        return 0.0  # a server keeps no prefixes, so that the model in this process shall not either

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]:
        self.calls += 1
        if self.calls != self.at:
            return self.scorer.score_batch(items)
        self.server.process.send_signal(signal.SIGSTOP)
        thread = threading.Thread(target=self._kill_and_start)
        thread.start()
        results = self.scorer.score_batch(items)
        thread.join()
        return results

    def _kill_and_start(self) -> None:
        time.sleep(0.3)
        self.server.kill()
        time.sleep(0.3)
        self.server.start()


def unverified(problem: Problem, solution: str) -> Verdict:
    return Verdict(outcome=Outcome.UNVERIFIABLE)


def search(
    folders: Path, reward_model: str, journal: Path, interrupt: ServerProcess | None = None
) -> tuple[list[Any], list[str], int]:
    """The results, the journal's lines and the number of calls to the reward model."""
    engine, scorer = load_engine(str(folders / "policy"), reward_model, seed=1, device=CPU)
    problems = [Problem(id=str(i), prompt=f"1 2 {i} -> 6\n", answer="6") for i in range(1, 9)]
    at = 4 if interrupt else 0
    counted: Any = Interrupted(scorer, interrupt, at)  # type: ignore[arg-type]
    results = list(
        run_searches(
            problems,
            bind(MCTSConfig(budgets=(8,))),
            engine=engine,
            scorer=counted,
            verify=unverified,
            settings=SearchSettings(max_step_tokens=20, max_new_tokens=60, max_depth=4),
            journal=Journal(journal),
        )
    )
    return results, journal.read_text().splitlines(), counted.calls


def test_a_search_outlives_its_server(server: ServerProcess, folders: Path, tmp_path: Path) -> None:
    """Trees, scores, usage and journal are those of the model in this process: nothing is lost,
    and nothing that was paid for is paid again."""
    local = search(folders, str(folders / "prm"), tmp_path / "local.jsonl")
    first = server.process.pid
    cut = search(folders, server.address, tmp_path / "cut.jsonl", server)
    assert server.process.pid != first and server.process.poll() is None
    assert local[2] > 6  # the server died in the middle
    assert cut == local
    undisturbed = search(folders, server.address, tmp_path / "undisturbed.jsonl")
    assert undisturbed == local
    assert sum(r.usage.reward.sequences for r in local[0]) > 50
    # The server that came back has answered what was asked since, once.
    answered = httpx.get(f"{server.address}/health").json()["answered"]
    assert answered < 2 * sum(r.usage.reward.sequences for r in local[0])
