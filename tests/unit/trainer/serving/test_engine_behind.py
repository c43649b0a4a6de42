"""The search server with an engine of servers behind it: vLLM's protocol over a real tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.hostile_http import CHAT
from tests.unit.policy_server import PolicyServer
from tests.unit.search_server import PROBLEM, Served, serving, wait_until
from trainer.models.loading import load_policy
from trainer.searching.bundles import read_bundle
from trainer.searching.server_engines import SearchEngineConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy_server(bundle: Path) -> Iterator[PolicyServer]:
    policy = read_bundle(bundle).policy
    started = PolicyServer(*load_policy(policy), policy)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def over_engine(bundle: Path, policy_server: PolicyServer) -> Iterator[Served]:
    engine = SearchEngineConfig(
        engine="vllm_server", engine_url=policy_server.address, engine_wait_seconds=1.0
    )
    with serving(bundle, engine) as found:
        yield found


def choices(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    return response.json()["choices"]


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_the_answers_are_those_of_the_engine_in_this_process(
    served: Served, over_engine: Served, policy_server: PolicyServer, effort: str
) -> None:
    asked = len(policy_server.asked)
    for seed in range(2):
        here, there = (s.ask(seed=seed, reasoning_effort=effort) for s in (served, over_engine))
        assert choices(there) == choices(here)
    assert len(policy_server.asked) > asked


def test_a_stream_over_the_engine_says_what_a_whole_answer_says(over_engine: Served) -> None:
    client = over_engine.client()
    messages: Any = [{"role": "user", "content": PROBLEM}]
    whole = client.chat.completions.create(model="bundle", messages=messages, seed=3)
    chunks = client.chat.completions.create(model="bundle", messages=messages, seed=3, stream=True)
    text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    assert text == whole.choices[0].message.content


def test_a_client_that_goes_away_ends_its_search(
    over_engine: Served, policy_server: PolicyServer
) -> None:
    """Without it, a tree of four simulations asks the engine many times."""
    policy_server.faults, policy_server.hang_seconds = ["hang"], 0.5
    asked = len(policy_server.asked)
    body = {"model": "bundle", "messages": [{"role": "user", "content": PROBLEM}], "seed": 9}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            over_engine.address + CHAT, json=body | {"reasoning_effort": "high"}, timeout=0.3
        )
    wait_until(lambda: httpx.get(f"{over_engine.address}/health").json()["running"] == 0)
    after = len(policy_server.asked)
    assert after - asked <= 2  # the first requests of the tree
    assert choices(over_engine.ask(seed=1)) and len(policy_server.asked) > after


def test_an_engine_that_dies_is_said_and_comes_back(
    over_engine: Served, policy_server: PolicyServer
) -> None:
    before = choices(over_engine.ask(seed=4))
    policy_server.stop()
    response = over_engine.ask(seed=4)
    assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
    assert response.json()["error"]["code"] == "engine_unavailable"
    assert httpx.get(f"{over_engine.address}/health").json()["running"] == 0
    policy_server.start()
    assert choices(over_engine.ask(seed=4)) == before
