"""Users that no process on this machine is: each sandbox that root starts runs as one of its own,
so that a limit on a user's processes counts the sandbox's alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

# Ids that no distribution, container runtime or systemd hands out.
FIRST_UID, UIDS = 0x70000000, 0x0FFFFFFF
_lock = threading.Lock()
_in_use: set[int] = set()
_turn = itertools.count()


class NoUsers(RuntimeError):
    """There is nobody else to be on this machine."""


@contextlib.contextmanager
def unused_uid() -> Generator[int | None]:
    """None for an ordinary user; for root an id that nobody has. It stays ours until the launcher,
    and then the processes themselves, hold it. Raises NoUsers."""
    if os.getuid() != 0:
        yield None
        return
    with _lock:
        running = {entry.stat().st_uid for entry in processes()} | _in_use
        first, count = _range()
        # Spread by process, so that two of ours do not meet between looking and starting.
        offset = os.getpid() * 256 + len(_in_use) + next(_turn)
        uid = next(
            uid for i in range(count) if (uid := first + (offset + i) % count) not in running
        )
        _in_use.add(uid)
    try:
        yield uid
    finally:
        with _lock:
            _in_use.discard(uid)


def processes() -> Iterator[os.DirEntry[str]]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(FileNotFoundError):
                    entry.stat()
                    yield entry


@cache
def _range() -> tuple[int, int]:
    """(first, count): high ids that this user namespace can give to a process."""
    extents = [
        tuple(map(int, line.split()))
        for line in Path("/proc/self/uid_map").read_text(encoding="utf-8").splitlines()
    ]
    for first, _, count in extents:
        if first <= FIRST_UID and first + count >= FIRST_UID + UIDS:
            return FIRST_UID, UIDS
    first, _, count = max(extents, key=lambda extent: extent[2])
    usable = min(4096, count // 2)
    if usable < 16:
        raise NoUsers(
            "we are root in a user namespace that maps no other ids, so code cannot be run as "
            "another user"
        )
    # The top of a small range holds nobody (65534).
    return first + count - usable - 16, usable
