"""HTTP connections that cannot be held open for nothing: uvicorn's, with limits that it lacks.

uvicorn waits without end for the first request of a connection, for the rest of a head, and for a
client that does not read its answer. It closes a connection although the client is still sending:
TCP's reset for the unread bytes can then overtake the answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER_SECONDS = 2.0  # for which bytes of a client are dropped before its connection is closed


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits of a server's connections.

    `head_seconds`: in which the head of a request must arrive. It counts from the opening of the
    connection, and later from the first byte of the head. `stall_seconds`: for which a client may
    leave its answer unread. `most`: connections that are open at the same time.
    """

    head_seconds: float = 15.0
    stall_seconds: float = 60.0
    most: int = 4096


class LimitedConnection(H11Protocol):
    """One connection. A head that is wrong, too large or too slow is refused with a JSON error in
    OpenAI's form; status 431 is a head of more than 64 KiB."""

    def __init__(self, *, limits: ConnectionLimits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self.ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        super().connection_made(_Transport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > self._limits.most:
            self._refuse(503, "too_many_connections", "too many connections are open")
        else:
            self._head = self.loop.call_later(self._limits.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head = _cancelled(self._head)
        self._stall = _cancelled(self._stall)

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        super().data_received(data)
        if not self._idle:
            self._head = _cancelled(self._head)
        elif self._head is None and not self.ending:
            self._head = self.loop.call_later(self._limits.head_seconds, self._head_is_late)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_after(self._limits.stall_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.ending:
            self._stall = _cancelled(self._stall)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for what h11 cannot read, while it handles h11's error."""
        error = sys.exception()
        status = getattr(error, "error_status_hint", 400)
        code = "head_too_large" if status == 431 else "invalid_http"
        self._refuse(status, code, f"the request is not valid HTTP: {error}")

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _head_is_late(self) -> None:
        self._head = None
        if not self._idle or self.ending:
            return
        if self.conn.trailing_data[0] and self.conn.our_state is h11.IDLE:
            seconds = self._limits.head_seconds
            text = f"the head of the request did not arrive within {seconds:g} s"
            self._refuse(408, "head_timeout", text)
        else:
            self.end()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error, unless an answer has begun, and end the connection."""
        begun = self.cycle is not None and self.cycle.response_started
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not (begun and not self._idle):
            kind = "server_error" if status >= 500 else "invalid_request_error"
            error = {"message": message, "type": kind, "param": None, "code": code}
            content = json.dumps({"error": error}).encode()
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
                ("Connection", "close"),
            ]
            if status == 503:
                headers.append(("Retry-After", "1"))
            head = h11.Response(
                status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()
            )
            for event in (head, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.end(unread=True)

    def end(self, *, unread: bool | None = None) -> None:
        """Close the connection when what was written is sent, or the client has stalled.

        `unread`: whether the client may still be sending; by default, while its request has not
        arrived whole. It sees the end of the answer at once, and what it sends is dropped for at
        most `LINGER_SECONDS`.
        """
        if self.ending:
            return
        self.ending = True
        self._head = _cancelled(self._head)
        if unread is None:
            unread = self.conn.their_state is h11.SEND_BODY
        if unread:
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self._socket.close()
        self._abort_when_stalled()

    def _abort_when_stalled(self, unsent: int | None = None) -> None:
        """Abort when the client took none of `unsent` bytes, and look again later if it did."""
        left = self.transport.get_write_buffer_size()
        if unsent is not None and left >= unsent:
            self.transport.abort()
            return
        self._stall = _cancelled(self._stall)
        seconds = self._limits.stall_seconds if left else LINGER_SECONDS
        self._stall = self.loop.call_later(seconds, self._abort_when_stalled, left)

    def _abort_after(self, seconds: float) -> None:
        self._stall = _cancelled(self._stall)
        self._stall = self.loop.call_later(seconds, self.transport.abort)


class _Transport:
    """A transport that is closed by its connection, so that uvicorn does not do it too early."""

    def __init__(self, transport: asyncio.Transport, connection: LimitedConnection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._connection.end()

    def is_closing(self) -> bool:
        return self._connection.ending or self._transport.is_closing()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
