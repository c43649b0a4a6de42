"""Requests that the search server refuses, clients that go away, and searches that fail."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.unit.hostile_http import (
    CHAT,
    endless,
    exchange,
    hostile_bodies,
    malformed_heads,
    post,
    unfinished_requests,
)
from tests.unit.search_server import PROBLEM, Served, serving, wait_until
from trainer.serving.config import SearchServerConfig
from trainer.serving.serve import connection_limits

pytestmark = pytest.mark.slow


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
    with serving(bundle, head_seconds=1, body_seconds=3) as served:
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


@pytest.mark.parametrize("refused", ["too large", "without a key"])
def test_a_client_that_sends_on_sees_why_it_is_refused(
    bundle: Path, tmp_path: Path, refused: str
) -> None:
    """A connection that is closed with bytes unread is reset, and the answer may be lost."""
    keys = tmp_path / "keys" if refused == "without a key" else None
    if keys:
        keys.write_text("a-key-of-more-than-sixteen-characters\n", encoding="utf-8")
    sent = 8 if keys else 70
    with serving(bundle, api_keys=keys and str(keys)) as served:
        host, port = served.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(post(b"", length=2**50))
            for part in endless(b" ", sent):
                connection.sendall(part)
            reply = connection.recv(65536).decode()
        assert reply.startswith("HTTP/1.1 401" if keys else "HTTP/1.1 413"), reply


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


def test_connections_leave_room_for_other_files() -> None:
    config = SearchServerConfig(bundle="b", max_connections=1000)
    assert [connection_limits(config, files).most for files in (256, 1128, 10**6)] == [
        128,
        1000,
        1000,
    ]
