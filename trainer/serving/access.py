"""Who may ask, how much, and how many at once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from trainer.serving.errors import APIError

DROPPED_BYTES = 64 * 2**20
SMOOTHING = 0.1  # weight of the newest search in the mean time of a search


class KeyRing:
    """The API keys of a file, one per line. Without a file, every request is allowed."""

    def __init__(self, path: str | None) -> None:
        """Raises ValueError for a file without keys."""
        self._digests: list[bytes] | None = None
        if path is not None:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            keys = [line.strip() for line in lines if line.strip()]
            if not keys:
                raise ValueError(f"api_keys is {path!r}, which holds no key")
            self._digests = [_digest(key) for key in keys]

    def owner(self, request: Request) -> str:
        """A name of the client: that of its key, or "". Raises APIError without a right key."""
        if self._digests is None:
            return ""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = _digest(key.strip())
        # All keys are compared, so that the time says nothing about which one is near.
        right = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(right):
            raise APIError(
                401,
                "no valid API key: send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
                closes=True,
            )
        return given.hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body of a request. Raises APIError for a body of more than `most` bytes, and for one that
    has not arrived after `seconds`. What is too much is read and dropped, up to `DROPPED_BYTES`: a
    client that is still sending does not see the error."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    parts.append(part)
                elif size > most + DROPPED_BYTES:
                    break
    except TimeoutError:
        raise APIError(
            408,
            f"the body did not arrive within {seconds:g} s",
            code="body_timeout",
            closes=True,
        ) from None
    except ClientDisconnect:
        raise APIError(400, "the connection was closed", code="disconnected") from None
    if size > most:
        raise APIError(
            413, f"the body has more than {most:,} bytes", code="body_too_large", closes=True
        )
    return b"".join(parts)


class Places:
    """Places for searches: `most` run, and `waiting` more wait in the order of their arrival."""

    def __init__(self, *, most: int, waiting: int) -> None:
        self._most, self._limit = most, most + waiting
        self._free = asyncio.Semaphore(most)
        self.taken = 0  # searches that run or wait
        self.running = 0
        self.seconds = 1.0  # mean time of a search

    @property
    def waiting(self) -> int:
        return self.taken - self.running

    def enter(self, searches: int) -> None:
        """Take places in the queue; `leave` gives each back. Raises APIError if it is full."""
        if self.taken + searches > self._limit:
            rounds = (self.taken + searches - self._limit) / self._most
            pause = max(1, math.ceil(self.seconds * rounds))
            raise APIError(
                429,
                f"{self.taken} searches run or wait, and {self._limit} may: try again in {pause} s",
                code="queue_full",
                headers={"Retry-After": str(pause)},
            )
        self.taken += searches

    def leave(self, searches: int) -> None:
        self.taken -= searches

    @asynccontextmanager
    async def running_search(self, deadline: float) -> AsyncGenerator[None]:
        """Wait for a free place, and hold it. Raises APIError if there is none until `deadline`, a
        time of the event loop's clock."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(0)  # a deadline that has passed is seen even with a free place
                await self._free.acquire()
        except TimeoutError:
            raise APIError(
                503,
                "the deadline passed while the request waited for a place",
                code="deadline",
                headers={"Retry-After": str(max(1, math.ceil(self.seconds)))},
            ) from None
        started = loop.time()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self.seconds += SMOOTHING * (loop.time() - started - self.seconds)
            self._free.release()
