"""Control groups: what all processes of one sandbox together may have, where this machine lets us.

That is as root, or as a user to whom a part of the tree of control groups was handed over. Both
versions of control groups are known. Where there is none to be had, the limits of each process
hold alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "thinktree-sandbox"
REMOVE_SECONDS = 2.0
_number = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder where groups can be made, and the file that holds each limit."""

    folder: Path
    memory: str | None
    processes: str | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """`joins` are files: a process that writes 0 to them is in the group from then on."""

    folders: tuple[Path, ...]

    @property
    def joins(self) -> list[str]:
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def remove(self) -> None:
        """Once its processes are gone."""
        deadline = time.monotonic() + REMOVE_SECONDS
        for folder in self.folders:
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    if time.monotonic() < deadline:
                        time.sleep(0.002)
                        continue
                break


def make_group(memory_bytes: int, processes: int) -> Group | None:
    """None where no group can be made."""
    folders: list[Path] = []
    name = f"{PREFIX}-{os.getpid()}-{next(_number)}"
    for place in places():
        folder = place.folder / name
        try:
            folder.mkdir()
            folders.append(folder)
            if place.memory is not None:
                _write(folder / place.memory, memory_bytes)
                for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
                    with contextlib.suppress(OSError):
                        _write(folder / swap, memory_bytes if "memsw" in swap else 0)
            if place.processes is not None:
                _write(folder / place.processes, processes)
        except OSError:
            Group(folders=tuple(folders)).remove()
            return None
    return Group(folders=tuple(folders)) if folders else None


@cache
def places() -> tuple[Place, ...]:
    """Where this process can make groups that limit memory, and processes; asked once."""
    found = tuple(_places())
    if not any(place.memory for place in found):
        return ()
    for place in found:
        _remove_those_of_the_dead(place.folder)
    return found


def _places() -> Iterator[Place]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        own = path.lstrip("/")
        if "memory" in names and _usable(ROOT / "memory" / own):
            yield Place(
                folder=ROOT / "memory" / own, memory="memory.limit_in_bytes", processes=None
            )
        if "pids" in names and _usable(ROOT / "pids" / own):
            yield Place(folder=ROOT / "pids" / own, memory=None, processes="pids.max")
        if not controllers:
            for folder in [ROOT / own, *(ROOT / own).parents]:
                if ROOT not in [folder, *folder.parents]:
                    break
                if _usable(folder) and "memory" in _read(folder / "cgroup.subtree_control"):
                    pids = "pids" in _read(folder / "cgroup.subtree_control")
                    yield Place(
                        folder=folder,
                        memory="memory.max",
                        processes="pids.max" if pids else None,
                    )
                    break


def _usable(folder: Path) -> bool:
    """Whether a group can be made in it, and a process of ours put there: tried, since what the
    files' permissions say is not all that is asked for."""
    if not os.access(folder, os.W_OK) or not os.access(folder / "cgroup.procs", os.W_OK):
        return False
    group = Group(folders=(folder / f"{PREFIX}-{os.getpid()}-{next(_number)}",))
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        group.folders[0].mkdir()
        _write(group.folders[0] / "cgroup.procs", child.pid)
        return True
    except OSError:
        return False
    finally:
        child.kill()
        child.communicate()
        group.remove()


def _remove_those_of_the_dead(folder: Path) -> None:
    for group in folder.glob(f"{PREFIX}-*"):
        pid = group.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []


def _write(file: Path, value: int) -> None:
    # Opened for writing alone: such a file that is not there is not made.
    handle = os.open(file, os.O_WRONLY)
    try:
        os.write(handle, str(value).encode())
    finally:
        os.close(handle)
