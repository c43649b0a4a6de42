"""Connections that a client holds open for nothing, and heads that are no HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.hostile_http import Reply, chunked, endless, exchange, malformed_heads, post
from trainer.runtime import http_connections
from trainer.runtime.http_connections import ConnectionLimits, LimitedConnection
from trainer.runtime.web_server import uvicorn_server

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
Address = tuple[str, int]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers /large with 32 MiB, /slow after the client is gone, and reads other bodies first."""
    if scope["type"] != "http":
        return
    while scope["method"] == "POST" and b"unread" not in scope["raw_path"] + scope["query_string"]:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(512 if scope["path"] == "/large" else 0):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def serving(**limits: Any) -> Iterator[tuple[Address, Any]]:
    limits = {"head_seconds": 0.2, "stall_seconds": 0.3} | limits
    server = uvicorn_server(
        app, host="", port=0, shutdown_seconds=1, limits=ConnectionLimits(**limits)
    )
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname(), server.server_state.connections
        finally:
            server.should_exit = True
            thread.join()


def run(work: Coroutine[Any, Any, Reply]) -> Reply:
    return asyncio.run(work)


def whole_answer(connection: socket.socket) -> bytes:
    """What comes until the answer or the connection ends."""
    received = b""
    while not received.endswith(b"0\r\n\r\n") and (part := connection.recv(65536)):
        received += part
    return received


def wait_until_empty(connections: Any, seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.01)):
        if not connections:
            return
        time.sleep(0.01)
    raise AssertionError(f"{len(connections)} connections are still open")


def test_a_head_that_is_no_http_gets_a_clear_error() -> None:
    with serving() as (address, connections):
        for name, (parts, status) in malformed_heads().items():
            reply = run(exchange(address, parts))
            assert (reply.status, reply.closed) == (status, True), (name, reply)
            assert "not valid HTTP" in reply.error() and len(reply.text) < 500, name
        wait_until_empty(connections)
        assert run(exchange(address, [LAST_GET])).status == 200


def test_silent_connections_and_slow_heads_are_closed() -> None:
    with serving() as (address, connections):
        silent = run(exchange(address, []))
        assert (silent.status, silent.closed) == (0, True)
        slow = run(exchange(address, [GET[i : i + 1] for i in range(20)], pause=0.05))
        assert (slow.status, slow.closed) == (408, True)
        assert slow.error() == "the head of the request did not arrive within 0.2 s"
        with socket.create_connection(address) as connection:
            connection.sendall(GET)
            assert whole_answer(connection).startswith(b"HTTP/1.1 200")
            connection.sendall(GET[:5])  # and the rest of this second head does not come
            assert whole_answer(connection).startswith(b"HTTP/1.1 408")
        wait_until_empty(connections)


def test_a_head_in_time_and_a_connection_that_waits_for_its_next_request_are_served() -> None:
    with serving(head_seconds=0.1) as (address, _), socket.create_connection(address) as connection:
        for _ in range(3):  # the pause between requests is longer than that for a head
            connection.sendall(GET)
            assert whole_answer(connection).startswith(b"HTTP/1.1 200")
            time.sleep(0.2)
        connection.sendall(post(b"", length=2))
        time.sleep(0.2)  # the head has arrived, so the body may take longer
        connection.sendall(b"{}")
        assert whole_answer(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_its_answer_loses_the_connection() -> None:
    with serving() as (address, connections), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(GET.replace(b"/health", b"/large"))
        time.sleep(0.1)
        assert len(connections) == 1
        wait_until_empty(connections)
        assert run(exchange(address, [LAST_GET])).status == 200


def test_a_slow_reader_gets_all_of_its_answer() -> None:
    with serving() as (address, _), socket.create_connection(address) as connection:
        connection.sendall(GET.replace(b"/health", b"/large"))
        size = 0
        for _ in range(8):  # 1.2 s, four times the limit for a client that reads nothing
            time.sleep(0.15)
            size += len(connection.recv(2**22, socket.MSG_WAITALL))
        connection.settimeout(2)
        while part := connection.recv(2**20):
            size += len(part)
            if part.endswith(b"0\r\n\r\n"):
                break
        assert size > 32 * 2**20


def test_a_body_that_nobody_reads_does_not_hold_the_connection() -> None:
    with serving() as (address, connections):
        head = post(b"", path="/unread", length=2**40)
        for _ in range(20):  # a reset for unread bytes would overtake some of the answers
            reply = run(exchange(address, [head, *endless(b"x", 1)], seconds=5))
            assert reply.status == 200 and reply.text.endswith("ok\r\n0\r\n\r\n")
        wait_until_empty(connections)


def test_a_client_that_sends_while_it_reads_gets_all_of_a_large_answer() -> None:
    with serving() as (address, connections), socket.create_connection(address) as connection:
        connection.sendall(post(b"", path="/large?unread", length=2**40))
        size = 0
        while part := connection.recv(2**20):
            size += len(part)
            connection.sendall(bytes(64))
            time.sleep(0.01)
        assert size > 32 * 2**20 and part == b""
        wait_until_empty(connections)


def test_a_broken_chunk_ends_the_request() -> None:
    with serving() as (address, connections):
        reply = run(exchange(address, chunked([b"2\r\n{}\r\n", b"zz\r\n"]), pause=0.02))
        assert reply.status == 400 and "not valid HTTP" in reply.error()
        wait_until_empty(connections)


def test_a_refused_client_that_stays_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "LINGER_SECONDS", 0.2)
    with serving() as (address, connections), socket.create_connection(address) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert whole_answer(connection).startswith(b"HTTP/1.1 400")
        connection.sendall(GET)  # is dropped
        wait_until_empty(connections)


def test_last_bytes_that_nobody_takes_do_not_hold_an_idle_connection() -> None:
    """A transport that closes waits for its buffer without end, so it is aborted."""

    async def run() -> list[str]:
        server = uvicorn_server(app, host="", port=0, shutdown_seconds=1)
        limits = ConnectionLimits(stall_seconds=0.05)
        connection = LimitedConnection(
            limits=limits, config=server.config, server_state=server.server_state, app_state={}
        )
        transport = MagicMock()
        transport.is_closing.return_value = False
        transport.get_write_buffer_size.return_value = 1
        connection.connection_made(transport)
        connection.timeout_keep_alive_handler()
        await asyncio.sleep(0.1)
        return [name for name, *_ in transport.method_calls if name in ("close", "abort")]

    assert asyncio.run(run()) == ["close", "abort"]


def test_connections_beyond_the_limit_are_refused_and_come_back() -> None:
    with serving(most=20, head_seconds=1.0) as (address, connections):
        held = [socket.create_connection(address) for _ in range(20)]
        reply = run(exchange(address, [LAST_GET]))
        assert (reply.status, reply.error()) == (503, "too many connections are open")
        assert "Retry-After: 1" in reply.text
        for connection in held:
            connection.close()
        wait_until_empty(connections)
        assert run(exchange(address, [LAST_GET])).status == 200


@pytest.mark.slow
def test_a_thousand_silent_connections_beside_a_client() -> None:
    with serving(head_seconds=1.5) as (address, connections):
        held = [socket.create_connection(address) for _ in range(1000)]
        started = time.monotonic()
        for _ in range(20):
            assert run(exchange(address, [LAST_GET])).status == 200
        assert time.monotonic() - started < 3
        wait_until_empty(connections)
        for connection in held:
            connection.close()
