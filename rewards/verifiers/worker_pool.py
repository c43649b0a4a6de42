"""Worker processes that answer JSON lines and can be killed at a deadline, from any thread."""

from __future__ import annotations

import json
import os
import select
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, cast

START_SECONDS = 120.0  # imports on a loaded machine; not counted against a request's deadline
MAX_REPLY_BYTES = 1 << 20


class WorkerTimeout(Exception):
    """The worker had no answer at the deadline; it was killed."""


class WorkerDied(Exception):
    """The worker ended, or answered with something that is no JSON object."""


class _Worker:
    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
            bufsize=0,
        )
        try:
            self._read_reply(START_SECONDS)
        except (WorkerTimeout, WorkerDied) as error:
            self.kill()
            raise RuntimeError(f"worker {' '.join(words)!r} did not start") from error

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise WorkerDied("the worker ended") from error
        return self._read_reply(seconds)

    def _read_reply(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        received = bytearray()
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise WorkerTimeout(f"no answer after {seconds:g} s")
            chunk = os.read(handle, 1 << 16)
            received += chunk
            if not chunk or len(received) > MAX_REPLY_BYTES:
                raise WorkerDied("the worker ended")
        try:
            reply = json.loads(received)
        except ValueError as error:
            raise WorkerDied("the worker's answer is no JSON") from error
        if not isinstance(reply, dict):
            raise WorkerDied("the worker's answer is no JSON object")
        return cast("dict[str, Any]", reply)

    def kill(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


def _kill_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().kill()


class WorkerPool:
    """At most `size` processes, started when they are first needed, one request at a time each.

    A process that misses a deadline or dies is killed and replaced at the next request. All of them
    end with the pool, with this process, or on `close`.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], size: int) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; allowed: 1 or more")
        self._words = tuple(words)
        self._environment = dict(environment)
        self._free_slots = threading.Semaphore(size)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _kill_all, self._idle)

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer. The wait for a free process does not count against `seconds`. When the
        process dies, which it may have done while idle, a new one is asked the same once.

        Raises WorkerTimeout, WorkerDied, and RuntimeError when a process does not even start.
        """
        with self._free_slots:
            worker = self._take()
            deadline = time.monotonic() + seconds
            try:
                return self._ask(worker, request, seconds)
            except WorkerDied:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            return self._ask(_Worker(self._words, self._environment), request, left)

    def _ask(self, worker: _Worker, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        try:
            reply = worker.ask(request, seconds)
        except BaseException:
            worker.kill()
            raise
        with self._lock:
            self._idle.append(worker)
        return reply

    def _take(self) -> _Worker:
        with self._lock:
            if os.getpid() != self._owner:
                # After a fork the pipes are shared with the parent: they are the parent's.
                self._idle, self._owner = [], os.getpid()
                self._finalizer.detach()
                self._finalizer = weakref.finalize(self, _kill_all, self._idle)
            worker = self._idle.pop() if self._idle else None
        return worker or _Worker(self._words, self._environment)

    def close(self) -> None:
        with self._lock:
            _kill_all(self._idle)
