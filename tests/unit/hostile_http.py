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
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + content


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
    yield f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    yield from chunks
