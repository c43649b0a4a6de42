"""Requests that no good client sends, byte by byte, and what a server answers to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

CHAT = "/v1/chat/completions"
MIB = 2**20


@dataclass(frozen=True)
class Reply:
    """What a server sent until it closed the connection or fell silent. `status` 0: nothing."""

    status: int
    text: str
    closed: bool

    def error(self) -> str:
        """The message of OpenAI's error object."""
        return json.loads(self.text.partition("\r\n\r\n")[2])["error"]["message"]


async def exchange(
    address: tuple[str, int], parts: Iterable[bytes], *, pause: float = 0.0, seconds: float = 10.0
) -> Reply:
    """Send the parts, `pause` seconds apart, and read until the connection is closed, or no longer
    than `seconds` in all. Sending ends with the first byte of an answer."""
    reader, writer = await asyncio.open_connection(*address)
    received = bytearray()

    async def send() -> None:
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)

    async def read() -> bool:
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                sending.cancel()
                received.extend(part)
        return True

    sending = asyncio.create_task(send())
    try:
        closed = await asyncio.wait_for(read(), seconds)
    except TimeoutError:
        closed = False
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.transport.abort()
    text = received.decode("utf-8", errors="replace")
    status = int(text.split()[1]) if text.startswith("HTTP/1.1 ") else 0
    return Reply(status, text, closed)


def post(content: bytes, path: str = CHAT, length: int | None = None) -> bytes:
    """A request whose head says that its body has `length` bytes."""
    size = len(content) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + content


def endless(part: bytes, megabytes: int = 64) -> Iterator[bytes]:
    """A part again and again: no client has sent all of it."""
    block = part * (65536 // len(part) + 1)
    for _ in range(megabytes * MIB // len(block)):
        yield block


def malformed_heads() -> Mapping[str, tuple[Iterable[bytes], int]]:
    """By name: the parts of a request whose head is wrong, and the status it is answered with."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    return {
        "100,000 headers": ((head, b"".join(b"H%d: v\r\n" % i for i in range(100_000))), 431),
        "header of 64 MiB": ((head, b"X: ", *endless(b"v")), 431),
        "path of 1 MiB": ((b"GET /" + b"a" * MIB,), 431),
        "NUL in a header": ((head + b"X: a\0b\r\n\r\n",), 400),
        "control character in a name": ((head + b"X\x07: v\r\n\r\n",), 400),
        "header without a colon": ((head + b"nonsense\r\n\r\n",), 400),
        "two lengths": ((head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",), 400),
        "negative length": ((head + b"Content-Length: -1\r\n\r\n",), 400),
        "huge length": ((head + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",), 400),
        "unknown coding": ((head + b"Transfer-Encoding: gzip\r\n\r\n",), 501),
        "no host": ((b"GET /health HTTP/1.1\r\n\r\n",), 400),
        "TLS": ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),), 400),
        "another protocol": ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n",), 400),
    }


def chunked(chunks: Iterable[bytes], path: str = CHAT) -> Iterator[bytes]:
    """A request with a chunked body; the chunks are sent as they are given."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    yield f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    yield from chunks


def chat_body(model: str, problem: str = "3 4 7 -> 14", **more: object) -> bytes:
    messages = [{"role": "user", "content": problem}]
    return json.dumps({"model": model, "messages": messages} | more).encode()


def hostile_bodies(model: str) -> Mapping[str, tuple[bytes, int]]:
    """By name: a body of a chat request, and the status it is answered with."""
    plain = chat_body(model).decode()

    def with_key(key: str, value: str) -> bytes:
        return f'{plain[:-1]}, "{key}": {value}}}'.encode()

    many = 75_000
    numbered = ",".join(f'"k{i}": 1' for i in range(many))
    deep = "[" * 400_000
    return {
        "prompt of 10 MB": (chat_body(model, "1 " * 5_000_000), 413),
        "prompt of 900 KB": (chat_body(model, "1 " * 450_000), 400),
        "deep JSON": (with_key("metadata", deep + "]" * 400_000), 400),
        "deep JSON without an end": (with_key("metadata", deep), 400),
        "75,000 unknown keys": (f"{plain[:-1]}, {numbered}}}".encode(), 400),
        "75,000 wrong values": (with_key("metadata", f"{{{numbered}}}"), 400),
        "500,000 wrong items": (with_key("stop", f"[{'1,' * 499_000}1]"), 400),
        "500,000 wrong messages": (f'{{"messages": [{"1," * 499_000}1]}}'.encode(), 400),
        "300,000 wrong parts": (
            plain.replace('"3 4 7 -> 14"', f"[{'[],' * 300_000}1]").encode(),
            400,
        ),
        "500,000 wrong modalities": (with_key("modalities", f"[{'1,' * 499_000}1]"), 400),
        "control characters": (chat_body(model, "\x00\x07\x1b[31m"), 400),
        "raw control characters": (plain.replace("3 4", "3\x00 4").encode(), 400),
        "lone surrogate": (plain.replace("3 4", "\\ud800").encode(), 400),
        "not UTF-8": (plain.encode().replace(b"3 4", b"\xff\xfe"), 400),
        "list": (b"[]", 400),
        "nothing": (b"", 400),
        "number as text": (with_key("seed", '"1"'), 400),
        "number of 5,000 digits": (with_key("seed", "9" * 5000), 400),
        "NaN": (with_key("deadline_seconds", "NaN"), 400),
    }


def unfinished_requests() -> Mapping[str, tuple[Iterable[bytes], float, int]]:
    """By name: the parts of a request, the seconds between them, and the status of the answer."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX: "
    return {
        "silent": ([], 0.0, 0),
        "slow head": ([head, *[b"x"] * 1000], 0.2, 408),
        "slow body": ([post(b"{", length=1000), *[b" "] * 999], 0.2, 408),
        "body without an end": ([post(b"", length=2**50), *endless(b" ", 80)], 0.0, 413),
        "chunks of one byte": (chunked([b"1\r\n \r\n"] * 10_000 + [b"zz\r\n"]), 0.0, 400),
        "endless chunks": (
            chunked(b"%x\r\n%s\r\n" % (len(b), b) for b in endless(b" ", 80)),
            0.0,
            413,
        ),
        "broken chunk": (chunked([b"2\r\n{}\r\n", b"zz\r\n"]), 0.1, 400),
    }
