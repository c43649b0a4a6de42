"""Processes without a network, a home, or other processes in sight, gone at their deadline.

bubblewrap gives a process its own user, PID, mount, network, IPC and host name namespaces; the
launcher before it gives it an unused user id (where we are root), a scratch folder with limited
bytes and files, and its limits. What is guaranteed:

- Every process in the namespace, its first one included, has the limits of `Limits`, for good.
- Where this machine allows a control group (`rewards.sandbox.groups`: as root, or with one handed
  over), all processes together have no more memory than one may have, and what the scratch folder
  and the processes that start it take. Elsewhere each process has that limit, and only the number
  of processes limits their sum. Short of memory, the machine ends these processes first, and they
  cannot say otherwise: /proc is read-only inside.
- On x86-64 and 64-bit ARM a filter of system calls (`rewards.sandbox.syscalls`) refuses what
  namespaces and limits do not hold: tracing other processes, System V's and POSIX's queues,
  semaphores and shared segments, files in memory, sockets of other families than UNIX's and the
  internet's, the kernel's keyrings, io_uring. On other machines these stay within reach, and the
  memory of files without a name is limited by the number of open files and the deadline alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rewards.sandbox.groups import Group, make_group
from rewards.sandbox.interpreter import (
    HERE,
    PACKAGES_FOLDER,
    PROBE_SECONDS,
    NoInterpreter,
    package_folders,
    python,
    sources,
)
from rewards.sandbox.syscalls import filter_program
from rewards.sandbox.users import NoUsers, unused_uid

KILL_SECONDS = 5.0
# What the launcher, bubblewrap and the kernel take of a control group's memory, and processes.
OVERHEAD_BYTES, OVERHEAD_PROCESSES = 64 << 20, 4
# Runs inside before anything else: reads what to do from standard input, gives itself its limits.
BOOT = """
import base64, json, marshal, os, resource, sys, types
with os.fdopen(os.dup(0), "rb") as file:
    init = json.loads(file.read())
for name, value in init["limits"].items():
    resource.setrlimit(getattr(resource, name), (value, value))
sys.path += init["paths"]
for name in ("rewards", "rewards.sandbox"):
    sys.modules[name] = types.ModuleType(name)
for name, code, compiled in init["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(marshal.loads(base64.b64decode(code)) if compiled else code, module.__dict__)
module.main(init)
"""


class IsolationUnavailable(RuntimeError):
    """Code cannot be isolated on this machine; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one process tree: `seconds` of computing by each process, rounded up to whole ones, and
    `wall_seconds` in all (None: three times that, so that a busy machine makes no right program
    wrong); `memory_bytes` of address space of each process, and of memory of all of them where a
    control group can be had; `processes`, threads included, beside the first three; files of at
    most `scratch_bytes` and `scratch_files` of them together."""

    seconds: float = 10.0
    wall_seconds: float | None = None
    memory_bytes: int = 512 << 20
    processes: int = 32
    open_files: int = 32
    scratch_bytes: int = 32 << 20
    scratch_files: int = 256

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_bytes", "processes", "open_files", "scratch_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.wall_seconds is not None and not self.wall_seconds > 0:
            raise ValueError(f"wall_seconds is {self.wall_seconds}; it must be above 0, or null")
        if self.scratch_files < 2:
            raise ValueError(f"scratch_files is {self.scratch_files}; it must be at least 2")

    @property
    def deadline(self) -> float:
        """Seconds of wall time."""
        return 3 * self.seconds if self.wall_seconds is None else self.wall_seconds

    def as_rlimits(self) -> dict[str, int]:
        return {
            "RLIMIT_CPU": math.ceil(self.seconds),
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_NPROC": self.processes + 3,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_FSIZE": self.scratch_bytes,
            "RLIMIT_CORE": 0,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_SIGPENDING": 256,
        }


class Process:
    """A running tree of processes; `kill` leaves nothing of it."""

    def __init__(
        self, child: subprocess.Popen[bytes], info: int | None, group: Group | None
    ) -> None:
        self._child = child
        self._info = info  # where bubblewrap says which process is the namespace's first
        self._group = group

    def await_end(self, seconds: float) -> bool:
        """Whether the tree ends by itself within `seconds`."""
        deadline, pause = time.monotonic() + seconds, 0.0005
        while not self._has_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return True

    def kill(self) -> float:
        """End all processes of the tree. Returns when they are gone, with the seconds that they
        computed, as far as their parents waited for them."""
        if self._info is not None:
            first = self._first_inside()
            # With the first process of a PID namespace all others die; bubblewrap, its parent,
            # ends after that, and then the launcher, which waits for both.
            with contextlib.suppress(ProcessLookupError):
                if self._has_ended():
                    pass
                elif first is not None:
                    os.kill(first, signal.SIGKILL)
                else:
                    os.killpg(self._child.pid, signal.SIGTERM)
            self.await_end(KILL_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        _, status, used = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        if self._group is not None:
            self._group.remove()
        return used.ru_utime + used.ru_stime

    def _has_ended(self) -> bool:
        """Leaves it to be waited for: its number is its own until then."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._child.pid, flags) is not None

    def _first_inside(self) -> int | None:
        if self._info is None:
            return None
        os.set_blocking(self._info, False)
        try:
            said = os.read(self._info, 4096)
        except BlockingIOError:
            said = b""
        finally:
            os.close(self._info)
            self._info = None
        with contextlib.suppress(ValueError, KeyError):
            return int(json.loads(said)["child-pid"])
        return None


def start(
    main_module: str,
    init: Mapping[str, Any],
    limits: Limits,
    *,
    isolated: bool,
    keep_open: Sequence[int] = (),
    output: int | None = None,
) -> Process:
    """Start `rewards.sandbox.<main_module>`'s `main(init)` in a sandbox of its own.

    `keep_open` are file numbers that the process inherits, `output` is its standard output.
    """
    interpreter = python() if isolated else sys.executable
    folders = package_folders(interpreter)
    content = {
        **init,
        "limits": limits.as_rlimits(),
        "modules": sources(main_module, interpreter),
        "paths": [PACKAGES_FOLDER] if isolated else sorted({str(Path(f).parent) for f in folders}),
    }
    given = read_only_memory(json.dumps(content).encode())
    filtered = _filter_of_calls() if isolated else None
    info: tuple[int, int] | None = os.pipe() if isolated else None
    group = _group(limits) if isolated else None
    try:
        with unused_uid() if isolated else contextlib.nullcontext() as uid:
            words = _words(uid, limits, info[1] if info else None, filtered, group)
            child = subprocess.Popen(
                words,
                stdin=given,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=subprocess.DEVNULL,
                pass_fds=[
                    *keep_open,
                    *([info[1]] if info else []),
                    *([filtered] if filtered is not None else []),
                ],
                env={},
                cwd="/",
                start_new_session=True,
            )
    except BaseException:
        if info:
            os.close(info[0])
        if group is not None:
            group.remove()
        raise
    finally:
        os.close(given)
        if filtered is not None:
            os.close(filtered)
        if info:
            os.close(info[1])
    return Process(child, info[0] if info else None, group)


def _group(limits: Limits) -> Group | None:
    return make_group(
        limits.memory_bytes + limits.scratch_bytes + OVERHEAD_BYTES,
        limits.processes + OVERHEAD_PROCESSES,
    )


def _words(
    uid: int | None, limits: Limits, info: int | None, filtered: int | None, group: Group | None
) -> list[str]:
    if info is None:
        return [sys.executable, "-I", "-S", "-c", BOOT]
    request = {
        "uid": uid,
        "joins": [] if group is None else group.joins,
        "limits": limits.as_rlimits(),
        "scratch": _scratch(),
        "scratch_bytes": limits.scratch_bytes,
        "scratch_files": limits.scratch_files,
        "words": [*_bubblewrap_words(info, filtered), python(), "-I", "-S", "-c", BOOT],
    }
    return [python(), "-I", "-S", "-c", _launcher(), json.dumps(request)]


@cache
def _launcher() -> str:
    return (HERE / "launcher.py").read_text(encoding="utf-8")


def _bubblewrap_words(info: int, filtered: int | None) -> list[str]:
    words = [*_fixed_words(), "--info-fd", str(info)]
    return words if filtered is None else [*words, "--seccomp", str(filtered)]


@cache
def _fixed_words() -> tuple[str, ...]:
    bubblewrap = shutil.which("bwrap")
    assert bubblewrap is not None, "why_not_isolated() is asked first"
    words = [bubblewrap, "--unshare-user", "--unshare-all", "--disable-userns"]
    words += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
    variables = {"PATH": "/usr/bin:/bin", "HOME": "/scratch", "TMPDIR": "/scratch"}
    # More than one thread's heap, or a library's threads, would take up the address space.
    variables |= {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
    for name, value in variables.items():
        words += ["--setenv", name, value]
    words += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    prefix = str(Path(python()).resolve().parents[1])
    if not prefix.startswith("/usr"):
        words += ["--ro-bind", prefix, prefix]
    for folder in package_folders(python()):
        words += ["--ro-bind", folder, f"{PACKAGES_FOLDER}/{Path(folder).name}"]
    words += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    words += ["--bind", _scratch(), "/scratch", "--chdir", "/scratch", "--remount-ro", "/"]
    return tuple(words)


@cache
def _scratch() -> str:
    """A folder of every Linux that holds nothing of what the sandbox is given."""
    given = [str(Path(python()).resolve()), *package_folders(python())]
    return next(
        folder
        for folder in ("/tmp", "/mnt", "/media", "/srv")
        if not any(path.startswith(f"{folder}/") for path in given)
    )


def read_only_memory(content: bytes) -> int:
    """A file number from which `content` can be read and to which nothing can be written."""
    written = os.memfd_create("init")
    try:
        with os.fdopen(os.dup(written), "wb") as file:
            file.write(content)
        return os.open(f"/proc/self/fd/{written}", os.O_RDONLY)
    finally:
        os.close(written)


def _filter_of_calls() -> int | None:
    """A file number to read it from, for one process; None where there is no filter."""
    program = filter_program()
    return None if program is None else read_only_memory(program)


@cache
def why_not_isolated() -> str | None:
    """None where a sandbox starts on this machine, else why it does not. Asked once a process."""
    if sys.platform != "linux":
        return f"namespaces are a part of Linux, and this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian and Ubuntu: apt-get install bubblewrap)"
    try:
        return _probe()
    except (NoUsers, NoInterpreter) as error:
        return str(error)


def _probe() -> str | None:
    filtered = _filter_of_calls()
    group = _group(Limits())
    try:
        with unused_uid() as uid:
            done = subprocess.run(
                _words_of_probe(uid, filtered, group),
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                env={},
                cwd="/",
                pass_fds=[filtered] if filtered is not None else [],
            )
    except subprocess.TimeoutExpired:
        return f"a sandbox did not start within {PROBE_SECONDS:g} s"
    finally:
        if filtered is not None:
            os.close(filtered)
        if group is not None:
            group.remove()
    if done.stdout == "inside\n":
        return None
    said = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return (
        f"a sandbox does not start here: {said[:300]}. bubblewrap 0.8 or newer and unprivileged "
        "user namespaces are needed (sysctl kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns; containers need a seccomp profile that "
        "allows them)"
    )


def _words_of_probe(uid: int | None, filtered: int | None, group: Group | None) -> list[str]:
    words = _words(uid, Limits(), 2, filtered, group)
    request = json.loads(words[-1])
    boot = request["words"].index("-c")
    inside = request["words"][:boot]
    at = inside.index("--info-fd")
    del inside[at : at + 2]
    return [*words[:-1], json.dumps({**request, "words": [*inside, "-c", "print('inside')"]})]
