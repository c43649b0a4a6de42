"""Lines of bounded length over pipes, as both sides of a call between processes use them."""

from __future__ import annotations

import os

from rewards.sandbox.literals import MAX_BYTES

MAX_LINE = 4 * MAX_BYTES + (1 << 20)  # bytes of the characters of a message, and what is around it


class ChannelClosed(Exception):
    """The other side ended, or sent a line that is too long."""


class Channel:
    def __init__(self, read_from: int, write_to: int) -> None:
        self._read_from = read_from
        self._write_to = write_to
        self._buffer = bytearray()

    def send(self, line: str) -> None:
        data = memoryview(line.encode("utf-8", "surrogatepass") + b"\n")
        try:
            while data:
                data = data[os.write(self._write_to, data) :]
        except OSError as error:
            raise ChannelClosed("the other side ended") from error

    def receive(self) -> bytes:
        """The next line, without its end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise ChannelClosed("the other side sent a line without an end")
            chunk = os.read(self._read_from, 1 << 16)
            if not chunk:
                raise ChannelClosed("the other side ended")
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line
