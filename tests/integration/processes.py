"""Kill processes as a crash would."""

from __future__ import annotations

import subprocess
from typing import Any

import psutil


def kill_family(child: subprocess.Popen[Any]) -> None:
    """Kill a process and all its descendants."""
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=20)
    child.wait()
