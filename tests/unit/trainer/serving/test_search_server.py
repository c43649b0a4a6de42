"""The server of a tiny real bundle over real HTTP, asked by OpenAI's client and by hostile ones."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from search.base import solution_ids
from search.trees.files import result_from_json
from tests.unit.bundles import export_bundle
from tests.unit.hostile_http import (
    exchange,
    hostile_bodies,
    malformed_heads,
    post,
    unfinished_requests,
)
from trainer.runtime.web_server import uvicorn_server
from trainer.searching.server_engines import IN_PROCESS
from trainer.serving.access import Places
from trainer.serving.app import build_app
from trainer.serving.config import SearchServerConfig
from trainer.serving.errors import APIError
from trainer.serving.serve import connection_limits
from trainer.serving.service import SearchService, load_service
from trainer.serving.traces import TraceStore

pytestmark = pytest.mark.slow

PROBLEM = "3 4 7 -> 11"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Served:
    address: str
    service: SearchService

    def ask(self, **body: Any) -> httpx.Response:
        content = {"model": "bundle", "messages": [{"role": "user", "content": PROBLEM}]} | body
        return httpx.post(self.address + CHAT, json=content, timeout=30)

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0)


@contextmanager
def serving(bundle: Path, **fields: Any) -> Iterator[Served]:
    config = SearchServerConfig(bundle=str(bundle), device="cpu", **fields)
    loaded: list[SearchService] = []
    errors: list[BaseException] = []

    def load() -> SearchService:
        loaded.append(load_service(config, IN_PROCESS))
        return loaded[0]

    app = build_app(load, config, errors.append)
    limits = connection_limits(config, files=10_000)
    server = uvicorn_server(app, host="", port=0, shutdown_seconds=2, limits=limits)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            wait_until(lambda: bool(errors) or _ready(address))
            assert not errors
            yield Served(address, loaded[0])
        finally:
            server.should_exit = True
            thread.join()


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 10 s")


@pytest.fixture(scope="module")
def bundle(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(tmp_path_factory.mktemp("run"), tiny_policy)


@pytest.fixture(scope="module")
def served(bundle: Path) -> Iterator[Served]:
    with serving(bundle, max_body_kib=64) as found:
        yield found


def answered(response: httpx.Response) -> dict[str, Any]:
    """What a response says, without what differs between two equal requests."""
    assert response.status_code == 200, response.text
    content = response.json()
    for key in ("id", "created", "trace_id"):
        del content[key]
    return content


def test_equal_seeds_give_equal_answers_alone_and_in_company(served: Served) -> None:
    alone = {n: answered(served.ask(seed=n, reasoning_effort="high")) for n in range(3)}
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(served.ask, seed=n % 3, reasoning_effort="high") for n in range(12)]
        together = [answered(each.result()) for each in asked]
    assert together == [alone[n % 3] for n in range(12)]
    assert len({json.dumps(alone[n]["choices"]) for n in range(3)}) > 1
    drawn = served.ask(reasoning_effort="high")
    assert answered(served.ask(seed=drawn.json()["seed"], reasoning_effort="high")) == answered(
        drawn
    )


def test_every_token_of_the_tree_is_in_the_usage(served: Served) -> None:
    response = served.ask(seed=5, n=2, reasoning_effort="high")
    content = response.json()
    assert response.headers["X-Trace-Id"] == content["trace_id"]
    trace = httpx.get(f"{served.address}/v1/traces/{content['trace_id']}").json()
    trees = [result_from_json(row) for row in trace["trees"]]
    assert [tree.strategy for tree in trees] == ["mcts", "mcts"]
    policy = sum(n.usage.policy.generated_tokens for tree in trees for n in tree.nodes)
    reward = sum(n.usage.reward.positions for tree in trees for n in tree.nodes)
    usage = content["usage"]
    assert usage["completion_tokens"] == policy > 0
    assert usage["reward_model"]["positions"] == reward > 0
    nodes = [tree.snapshots[-1].answer_node for tree in trees]
    shown = 0
    for choice, tree, node in zip(content["choices"], trees, nodes, strict=True):
        text = choice["message"]["content"]
        assert text == tree.snapshots[-1].answer
        # The greedy completion of an open path is no node.
        score = None if node is None else tree.nodes[node].score
        assert choice["thinktree"]["confidence"] == score
        encoded = served.service.engine.tokenizer.encode(text, add_special_tokens=False)
        shown += len(encoded if node is None else solution_ids(tree.nodes, node))
    assert usage["completion_tokens_details"]["reasoning_tokens"] == policy - shown
    assert usage["prompt_tokens"] == len(served.service.engine.encode_prompt(f"{PROBLEM}\n"))


def test_the_levels_are_those_of_the_bundle(served: Served) -> None:
    client = served.client()
    [model] = client.models.list().data
    assert model.id == "bundle" and client.models.retrieve("bundle").owned_by == "thinktree"
    messages: Any = [{"role": "user", "content": PROBLEM}]
    found: dict[str, Any] = {}
    efforts: Any = ("low", "medium", "high")
    for effort in efforts:
        found[effort] = client.chat.completions.create(
            model="bundle", messages=messages, reasoning_effort=effort, seed=1
        )
    sampled = {name: one.choices[0].thinktree["solutions"] for name, one in found.items()}
    assert sampled["low"] <= 1
    assert found["low"].usage.completion_tokens < found["high"].usage.completion_tokens
    # Greedy decoding does not depend on the seed.
    other = client.chat.completions.create(
        model="bundle", messages=messages, reasoning_effort="low", seed=2
    )
    assert other.choices[0].message.content == found["low"].choices[0].message.content
    default = client.chat.completions.create(model="bundle", messages=messages, seed=1)
    assert default.choices[0].message == found["medium"].choices[0].message


def test_reasoning_is_shown_where_it_is_asked_for(served: Served) -> None:
    for seed in range(4):
        whole = served.ask(seed=seed).json()["choices"][0]["message"]
        parts = served.ask(seed=seed, include_reasoning=True).json()["choices"][0]["message"]
        assert parts["reasoning_content"] + parts["content"] == whole["content"]
        assert "\n" not in parts["content"].strip() and "reasoning_content" not in whole


def test_a_stream_says_what_a_whole_answer_says(served: Served) -> None:
    client = served.client()
    messages: Any = [{"role": "user", "content": PROBLEM}]
    whole = client.chat.completions.create(model="bundle", messages=messages, seed=3, n=2)
    chunks = list(
        client.chat.completions.create(
            model="bundle", messages=messages, seed=3, n=2, stream=True,
            stream_options={"include_usage": True}, extra_body={"include_reasoning": True},
        )
    )  # fmt: skip
    texts, ends = {0: "", 1: ""}, {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += getattr(choice.delta, "reasoning_content", None) or ""
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert texts == {c.index: c.message.content for c in whole.choices}
    assert ends == {c.index: c.finish_reason for c in whole.choices}
    assert chunks[-1].choices == [] and all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    body = {"model": "bundle", "prompt": f"{PROBLEM}\n", "seed": 3, "stream": True}
    raw = httpx.post(f"{served.address}/v1/completions", json=body, timeout=30).text
    events = [line.removeprefix("data: ") for line in raw.splitlines() if line]
    text = client.completions.create(model="bundle", prompt=f"{PROBLEM}\n", seed=3).choices[0].text
    assert events[-1] == "[DONE]" and json.loads(events[0])["choices"][0]["text"] == text


def test_a_limit_of_tokens_holds_for_thinking_and_answer(served: Served) -> None:
    whole = served.ask(seed=1, reasoning_effort="high").json()["usage"]["completion_tokens"]
    for limit in (1, 5, whole - 1, 100 * whole):
        content = served.ask(seed=1, reasoning_effort="high", max_completion_tokens=limit).json()
        # At the limit each sample that is asked for still has one token.
        most = max(limit, content["usage"]["policy"]["sequences"])
        assert content["usage"]["completion_tokens"] <= most
    assert content["usage"]["completion_tokens"] == whole


DEEP = '{"model": "bundle", "messages": ' + "[" * 20_000 + "]" * 20_000 + "}"
MESSAGE = '{"role": "user", "content": "3 4 7 -> 11"}'


def body_with(text: str) -> str:
    return '{"model": "bundle", "messages": [' + MESSAGE + "], " + text + "}"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 400, "not valid JSON"),
        ("{", 400, "not valid JSON"),
        ("[]", 400, "object"),
        (DEEP, 400, "recursion limit"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (body_with('"seed": "1"'), 400, "seed"),
        (body_with('"seed": 1.5'), 400, "seed"),
        (body_with('"seed": ' + "9" * 5000), 400, "number out of range"),
        (body_with('"n": 0'), 400, "n"),
        (body_with('"n": true'), 400, "n"),
        (body_with('"n": 9'), 400, "this server allows 8"),
        (body_with('"deadline_seconds": NaN'), 400, "deadline_seconds"),
        (body_with('"deadline_seconds": -1'), 400, "deadline_seconds"),
        (
            body_with('"temperature": 0.5'),
            400,
            "temperature may only be 1: sampling be",
        ),
        (body_with('"stop": ["x"]'), 400, "stop is not supported"),
        (body_with('"tools": [{}]'), 400, "tools"),
        (body_with('"reasoning_effort": "hihg"'), 400, "reasoning_effort"),
        (body_with('"resoning_effort": "high"'), 400, "unknown parameter: 'resoning_effort'"),
        (body_with(f'"{"k" * 50_000}": 1'), 400, "unknown parameter: 'kkk"),
        (body_with('"max_completion_tokens": 0'), 400, "max_completion_tokens"),
        (body_with('"stream_options": {}'), 400, "stream_options needs stream"),
        ('{"model": "bundle"}', 400, "messages"),
        ('{"model": "bundle", "messages": []}', 400, "messages"),
        ('{"model": "x", "messages": [' + MESSAGE + "]}", 404, "there is no model 'x'"),
        (body_with('"n": 1').replace(PROBLEM, "\\ud800"), 400, "not valid JSON"),
        (body_with('"n": 1').replace(PROBLEM, "\\u0000\\u0007"), 400, "Countdown problem"),
        (body_with('"n": 1').replace(PROBLEM, " "), 400, "no text"),
        (body_with('"n": 1').replace(PROBLEM, "3 4 77 -> 11"), 400, "77"),
        (body_with('"n": 1').replace(PROBLEM, "x " * 20_000), 400, "Countdown problem"),
        (body_with('"n": 1').replace(PROBLEM, "1 " * 300 + "2 -> 3"), 400, "fills the model's con"),
        (body_with('"n": 1').replace('"user"', '"system"'), 400, "must be the user's"),
        (
            body_with('"n": 1').replace(MESSAGE, f"{MESSAGE}, {MESSAGE}"),
            400,
            "no chat template: send one message",
        ),
        (body_with(f'"user": "{"x" * 70_000}"'), 413, "more than 65,536 bytes"),
    ],
)
def test_what_cannot_be_answered_is_a_clear_error(
    served: Served, body: Any, status: int, said: str
) -> None:
    response = httpx.post(served.address + CHAT, content=body, timeout=30)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"] or said == error["param"], error
    assert not error["message"].startswith((":", "Value error"))
    assert len(response.text) < 1000
    assert served.service.places.taken == 0


def test_other_paths_methods_and_chunked_bodies_are_refused(served: Served) -> None:
    assert httpx.get(f"{served.address}/v2").json()["error"]["code"] == "unknown_path"
    assert httpx.get(served.address + CHAT).status_code == 405
    assert (
        httpx.get(f"{served.address}/v1/traces/none").json()["error"]["code"] == "trace_not_found"
    )
    endless = (b" " * 8192 for _ in range(100))
    assert httpx.post(served.address + CHAT, content=endless).status_code == 413
    ten_megabytes = body_with('"n": 1').replace(PROBLEM, "1 " * 5_000_000)
    assert httpx.post(served.address + CHAT, content=ten_megabytes).status_code == 413
    with pytest.raises(openai.NotFoundError, match="there is no model 'y'"):
        served.client().completions.create(model="y", prompt="1")
    with pytest.raises(openai.BadRequestError, match="fewer than 2 tokens"):
        served.client().completions.create(model="bundle", prompt="")


def test_keys_guard_the_server_and_the_traces(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first-key\n\nsecond-key\n")
    with serving(bundle, api_keys=str(tmp_path / "keys"), max_running=1, max_waiting=1) as served:
        messages: Any = [{"role": "user", "content": PROBLEM}]
        first, second = served.client("first-key"), served.client("second-key")
        with pytest.raises(openai.AuthenticationError, match="no valid API key"):
            served.client("wrong").chat.completions.create(model="bundle", messages=messages)
        answer: Any = first.chat.completions.create(model="bundle", messages=messages)
        path = f"/traces/{answer.trace_id}"
        assert first.get(path, cast_to=httpx.Response).json()["trace_id"] == answer.trace_id
        with pytest.raises(openai.NotFoundError, match="no such trace"):
            second.get(path, cast_to=httpx.Response)
        with pytest.raises(openai.RateLimitError, match="0 searches run or wait, and 2") as refused:
            first.chat.completions.create(model="bundle", messages=messages, n=3)
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        assert first.chat.completions.create(model="bundle", messages=messages, n=2).choices[1]


def test_a_client_that_goes_away_ends_its_search(bundle: Path) -> None:
    with serving(bundle) as served:
        engine: Any = served.service.engine
        gate, real = threading.Event(), engine.sample_batch

        def held(items: Any) -> Any:
            assert gate.wait(10)
            return real(items)

        engine.sample_batch = held
        places = served.service.places
        for more in ({}, {"stream": True}):
            gate.clear()
            with connection_that_asks(served.address, more):
                wait_until(lambda: places.running == 1)
            wait_until(lambda: places.taken == 0)  # although the batch still runs
            gate.set()
        assert served.ask(seed=1).status_code == 200
        page = httpx.get(f"{served.address}/metrics").text
        generated = served.service.searches.spending.usage.policy.generated_tokens
        assert f"thinktree_generated_tokens_total {float(generated)}" in page
        assert 'thinktree_requests_total{path="/v1/chat/completions",status="200"}' in page
        assert "thinktree_searches_running 0.0" in page


def test_hostile_requests_are_refused_while_others_are_served(bundle: Path) -> None:
    with serving(bundle, head_seconds=0.3, body_seconds=0.3) as served:
        host, port = served.address.removeprefix("http://").split(":")
        requests = [
            *((name, parts, 0.0, status) for name, (parts, status) in malformed_heads().items()),
            *((n, [post(body)], 0.0, s) for n, (body, s) in hostile_bodies("bundle").items()),
            *((name, *more) for name, more in unfinished_requests().items()),
        ]
        good = served.ask(seed=1).json()["choices"]
        for name, parts, pause, status in requests:
            reply = asyncio.run(exchange((host, int(port)), parts, pause=pause))
            assert (reply.status, reply.closed) == (status, True), (name, reply.text[:500])
            assert len(reply.text) < 1000, name
            assert not status or reply.error(), name
        assert served.ask(seed=1).json()["choices"] == good
        assert served.service.places.taken == 0


def test_the_mistakes_of_a_body_are_counted_without_a_list_of_them(served: Served) -> None:
    numbered = ",".join(f'"k{i}": 1' for i in range(5_000))
    for text, said in (
        (numbered, "the body has 5,000 mistakes"),
        (f'"metadata": {{{numbered}}}', "the body has 5,000 mistakes"),
        (f'"stop": [{"1," * 20_000}1]', "stop.str: Input should be a valid string"),
        (f'"modalities": [{"1," * 20_000}1]', "modalities: List should have at most 16 items"),
    ):
        reply = httpx.post(served.address + CHAT, content=body_with(text), timeout=30)
        assert reply.status_code in (400, 413) and said in reply.json()["error"]["message"]


@contextmanager
def connection_that_asks(address: str, more: dict[str, Any]) -> Iterator[None]:
    """A connection that is closed at the end, whatever was answered."""
    host, port = address.removeprefix("http://").split(":")
    body = {"model": "bundle", "messages": [{"role": "user", "content": PROBLEM}]} | more
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + content)
        yield


def test_an_error_in_a_stream_is_an_event(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The status was sent before the search failed."""
    with serving(bundle) as served:
        engine: Any = served.service.engine

        def broken(items: Any) -> Any:
            raise RuntimeError("a secret of the server")

        engine.sample_batch = broken
        assert served.ask().status_code == 500
        streamed = served.ask(stream=True)
        [*_, last] = [line for line in streamed.text.splitlines() if line]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert streamed.status_code == 200 and error["code"] == "failed"
        assert "secret" not in streamed.text and "a secret" in caplog.text
        with pytest.raises(openai.APIError, match="its log says why"):
            list(
                served.client().completions.create(
                    model="bundle", prompt=f"{PROBLEM}\n", stream=True
                )
            )
        assert served.service.places.taken == 0


def test_a_deadline_that_passes_before_the_search_is_an_error(served: Served) -> None:
    refused = served.ask(deadline_seconds=1e-9, reasoning_effort="high")
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "deadline"
    assert "Retry-After" in refused.headers


def test_trees_are_kept_in_bounded_memory() -> None:
    store = TraceStore(most=2, bytes=400)
    for name in ("a", "b", "c"):
        store.add(name, "me", [{"name": name}])
    assert store.get("a", "me") is None and store.get("c", "you") is None
    assert json.loads(store.get("c", "me") or b"")["trees"] == [{"name": "c"}]
    large = [{"text": "".join(map(chr, range(0x4E00, 0x4E00 + 400)))}]
    store.add("large", "me", large)  # alone it needs more than there is
    assert store.get("large", "me") is None and store.get("b", "me") is not None
    assert 0 < store.size <= 400


def test_a_full_queue_says_when_to_come_back() -> None:
    places = Places(most=2, waiting=3)
    places.seconds = 4.0
    places.enter(5)
    with pytest.raises(APIError) as refused:
        places.enter(3)
    assert refused.value.headers == {"Retry-After": "6"}  # 3 too many, 2 at a time, 4 s each
    places.leave(3)
    places.enter(3)


def test_connections_leave_room_for_other_files() -> None:
    config = SearchServerConfig(bundle="b", max_connections=1000)
    assert [connection_limits(config, files).most for files in (256, 1128, 10**6)] == [
        128,
        1000,
        1000,
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"head_seconds": 0.0}, "head_seconds is 0.0"),
        ({"stall_seconds": -1.0}, "stall_seconds is -1.0"),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"port": 0}, "port is 0"),
        ({"max_running": 0}, "max_running is 0"),
        ({"deadline_seconds": 0.0}, "deadline_seconds is 0.0"),
        ({"max_traces": -1}, "max_traces is -1"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SearchServerConfig(bundle="b"), **fields)
