"""Kill processes as a crash would."""

from __future__ import annotations

from typing import Any, Protocol

import psutil


class Child(Protocol):
    pid: int

    def wait(self) -> Any: ...


def kill_family(child: Child) -> None:
    """Kill a process and all its descendants."""
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=20)
    child.wait()
