"""A reward model of this project behind a server that speaks vLLM's pooling protocol, with a real
tiny model."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from data.types import Outcome, Problem, Verdict
from rewards.base import SolutionTooLong
from rewards.models.folders import load_reward_model
from rewards.models.opening import open_reward_model
from rewards.models.prm import process_reward_model
from rewards.server.client import ScoringFailed, ServedModelChanged, ServerUnavailable
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.scorer import RewardScorer
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.runtime.input_identity import fingerprint_of

CPU = torch.device("cpu")
PATHS = [(3, 4, 5, 6, 7, 8), (3, 4, 5, 6, 9), (3, 4, 5, 6, 7, 8, 10)]
ENDS = [(3, 5), (3, 4), (3, 5, 6)]


class PoolingServer:
    """Scores of a model, of every sequence of a request. `asked` has the sequences. `faults` are
    statuses, or words: garbage, drop. Each one is used up by one request."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name, self.context = model.eval(), name, 100
        self.asked: list[tuple[int, ...]] = []
        self.faults: list[int | str] = []
        self.every_token = False  # started for token_classify
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                row = {"id": "prm", "root": owner.name, "max_model_len": owner.context}
                self.send(200, {"data": [row]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner._lock:
                    fault = owner.faults.pop(0) if owner.faults else 0
                    if fault == "drop":
                        self.connection.shutdown(socket.SHUT_RDWR)
                    elif fault == "garbage":
                        self.send(200, "scores")
                    elif isinstance(fault, int) and fault:
                        self.send(fault, {})
                    elif (self.path == "/pooling") != owner.every_token:
                        self.send(400, {"error": {"message": "task"}})
                    else:
                        self.send(200, owner.scores(body))

            def send(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"

    @torch.inference_mode()
    def scores(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["model"] == "prm" and not body["add_special_tokens"]
        rows: list[dict[str, Any]] = []
        for index, sequence in enumerate(body["input"]):
            self.asked.append(tuple(sequence))
            logits = self.model(input_ids=torch.tensor([sequence])).logits[0].float()
            values = torch.softmax(logits, dim=-1) if body["use_activation"] else logits
            named = {"data": values} if self.every_token else {"probs": values[-1]}
            named = {key: value.tolist() for key, value in named.items()}
            rows.append({"index": index, **named})
        return {"data": rows[::-1]}


@pytest.fixture(scope="module")
def prm(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_model(*tiny_policy, root / "policy")
    torch.manual_seed(1)
    model = reward_model_from_policy(str(root / "policy"))
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.config.thinktree_temperature, model.config.thinktree_bias = 1.7, 0.3
    save_model(model, tiny_policy[1], root / "prm")
    return root / "prm"


@pytest.fixture
def server(prm: Path) -> Iterator[PoolingServer]:
    started = PoolingServer(load_reward_model(str(prm)), str(prm))
    yield started
    started.http.shutdown()
    started.http.server_close()


def described(path: Path, server: PoolingServer, prm: Path, **fields: Any) -> str:
    values = {"convention": "vllm", "server": server.address, "model": str(prm)} | fields
    (path / "prm.yaml").write_text(json.dumps(values))
    return str(path / "prm.yaml")


@pytest.mark.parametrize("task", ["classify", "token_classify"])
def test_scores_are_those_of_the_model_here(
    prm: Path, server: PoolingServer, tmp_path: Path, task: str
) -> None:
    server.every_token = task == "token_classify"
    loaded = open_reward_model(described(tmp_path, server, prm, task=task), CPU)
    assert (loaded.max_context, loaded.vocab_size) == (100, server.model.config.vocab_size)
    here = process_reward_model(load_reward_model(str(prm)), 0)
    assert loaded.token_model is not None
    found, usage = loaded.token_model.score(PATHS, ENDS)
    expected, spent = here.score(PATHS, ENDS)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert usage == spent
    known = here.prefix_flops(4) if task == "classify" else 0.0
    assert loaded.token_model.prefix_flops(4) == known
    assert max(map(max, expected)) - min(map(min, expected)) > 0.01  # not all alike


def test_each_step_is_asked_for_once(prm: Path, server: PoolingServer, tmp_path: Path) -> None:
    loaded = open_reward_model(described(tmp_path, server, prm), CPU)
    assert loaded.token_model is not None
    server.asked.clear()
    first, _ = loaded.token_model.score(PATHS[:2], ENDS[:2])
    assert server.asked == [PATHS[0][:4], PATHS[1], PATHS[0]]
    again, _ = loaded.token_model.score([PATHS[2], PATHS[1]], [ENDS[2], ENDS[1]])
    assert server.asked[3:] == [PATHS[2]]
    assert again[1] == first[1] and again[0][:2] == first[0]


def test_a_search_has_the_tree_and_the_cost_of_the_model_here(
    tiny_policy: Any, prm: Path, server: PoolingServer, tmp_path: Path
) -> None:
    loaded = open_reward_model(described(tmp_path, server, prm), CPU)
    here = process_reward_model(load_reward_model(str(prm)), 0)
    here.keep_prefixes(4, bit_identical=True)
    found: list[Any] = []
    for model in (here, loaded.token_model):
        assert model is not None
        server.asked.clear()
        results = run_searches(
            [Problem(id=f"q{i}", prompt=f"{1 + i} 2 {3 + i} -> 6\n", answer="") for i in range(3)],
            partial(search_mcts, config=MCTSConfig(budgets=(4,), proposals=3)),
            engine=TransformersEngine(*tiny_policy, EngineConfig(seed=5)),
            scorer=RewardScorer(model),
            verify=lambda problem, solution: Verdict(outcome=Outcome.UNVERIFIABLE),
            settings=SearchSettings(guidance="prm", max_step_tokens=6, max_new_tokens=24),
        )
        by_name = sorted(results, key=lambda result: result.problem.id)
        nodes = [(n.parent, n.token_ids, n.visit_count) for r in by_name for n in r.nodes]
        found.append((nodes, [result.usage for result in by_name]))
    assert found[0] == found[1]
    assert any(usage.reward.repeated_positions for usage in found[0][1])  # in the server's cache
    assert len(server.asked) == len(set(server.asked)) > 3


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "garbage"])
def test_a_request_without_scores_is_sent_again_and_the_weights_are_compared(
    prm: Path, server: PoolingServer, tmp_path: Path, fault: int | str
) -> None:
    model = open_reward_model(described(tmp_path, server, prm), CPU).token_model
    assert model is not None
    expected, _ = process_reward_model(load_reward_model(str(prm)), 0).score(PATHS[:1], ENDS[:1])
    server.asked.clear()
    server.faults = [fault]
    found, _ = model.score(PATHS[:1], ENDS[:1])
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert len(server.asked) == 2 + 4  # two steps, and the sequences of the comparison
    server.faults = [fault]
    torch.manual_seed(9)
    torch.nn.init.normal_(server.model.score.weight, std=2.0)  # it returns with other weights
    with pytest.raises(ServedModelChanged, match=r"has other weights than .* start it again"):
        model.score(PATHS[2:], ENDS[2:])


def test_what_cannot_score_is_named(prm: Path, server: PoolingServer, tmp_path: Path) -> None:
    path = described(tmp_path, server, prm, wait_seconds=0.1)
    server.every_token = True
    with pytest.raises(ScoringFailed, match=r"gave no scores of classify .*: status 400"):
        open_reward_model(path, CPU)
    server.every_token = False
    server.faults = ["garbage"] * 3
    with pytest.raises(ScoringFailed, match=r"gave no scores of classify .*status 200, '\"scores"):
        open_reward_model(path, CPU)
    server.context = 6
    model = open_reward_model(path, CPU).token_model
    assert model is not None
    with pytest.raises(SolutionTooLong, match="7 tokens are more than the 6 of the server") as long:
        model.score(PATHS, ENDS)
    assert (long.value.indices, long.value.lengths, long.value.limit) == ((2,), (7,), 6)
    server.faults = [503] * 9
    with pytest.raises(ServerUnavailable, match=r"did not answer for 0\.1 s \(wait_seconds\)"):
        model.score(PATHS[:1], ENDS[:1])
    server.faults, server.name = [], "another"
    with pytest.raises(ValueError, match=r"serves 'prm', not .*: start it with --model"):
        open_reward_model(path, CPU)
    with pytest.raises(ValueError, match="task is 'encode'; allowed: classify, token_classify"):
        open_reward_model(described(tmp_path, server, prm, task="encode"), CPU)


def test_the_address_is_no_part_of_the_identity(
    prm: Path, server: PoolingServer, tmp_path: Path
) -> None:
    first = fingerprint_of(described(tmp_path, server, prm))
    server.address = "http://elsewhere:1"
    assert fingerprint_of(described(tmp_path, server, prm)) == first
    (prm / "config.json").write_text((prm / "config.json").read_text() + " ")
    assert fingerprint_of(described(tmp_path, server, prm)) != first
