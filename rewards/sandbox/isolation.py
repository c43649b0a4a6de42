"""Processes without a network, a home, or other processes in sight, gone at their deadline.

bubblewrap gives a process its own user, PID, mount, network, IPC and host name namespaces; the
launcher before it gives it an unused user id (where we are root) and a scratch folder with limited
bytes and files. Resource limits are set by the first lines that run inside, for good. On x86-64
and 64-bit ARM a filter of system calls (`rewards.sandbox.syscalls`) refuses what namespaces do not
hold: sockets of other families than UNIX's and the internet's, the kernel's keyrings, io_uring,
shared segments and files in memory. On other machines these stay within reach, and their memory is
limited by the number of open files and the deadline alone; a machine short of memory kills these
processes first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rewards.sandbox.syscalls import filter_program

HERE = Path(__file__).parent
# Ids that no distribution, container runtime or systemd hands out.
FIRST_UID, UIDS = 0x70000000, 0x0FFFFFFF
PROBE_SECONDS = 30.0
KILL_SECONDS = 5.0
MODULES = {
    "run_program": ("literals", "objects", "channel", "choice", "operations", "run_program"),
    "run_tests": ("literals", "objects", "channel", "remote", "run_tests"),
}
# Runs inside before anything else: reads what to do from standard input, gives itself its limits.
BOOT = """
import json, os, resource, sys, types
with os.fdopen(os.dup(0), "rb") as file:
    init = json.loads(file.read())
for name, value in init["limits"].items():
    resource.setrlimit(getattr(resource, name), (value, value))
for name in ("rewards", "rewards.sandbox"):
    sys.modules[name] = types.ModuleType(name)
for name, source in init["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main(init)
"""


class IsolationUnavailable(RuntimeError):
    """Code cannot be isolated on this machine; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one process tree: `seconds` of computing by each process, rounded up to whole ones, and
    `wall_seconds` in all (None: three times that, so that a busy machine makes no right program
    wrong); `memory_bytes` of address space of each process; `processes`, threads included, beside
    the first three; files of at most `scratch_bytes` and `scratch_files` of them together."""

    seconds: float = 10.0
    wall_seconds: float | None = None
    memory_bytes: int = 512 << 20
    processes: int = 8
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
        }


class Process:
    """A running tree of processes; `kill` leaves nothing of it."""

    def __init__(self, child: subprocess.Popen[bytes], info: int | None) -> None:
        self._child = child
        self._info = info  # where bubblewrap says which process is the namespace's first

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
    content = {**init, "limits": limits.as_rlimits(), "modules": _sources(main_module)}
    given = _read_only_memory(json.dumps(content).encode())
    filtered = _filter_of_calls() if isolated else None
    info: tuple[int, int] | None = os.pipe() if isolated else None
    try:
        with _unused_uid() if isolated else contextlib.nullcontext() as uid:
            words = _words(uid, limits, info[1] if info else None, filtered)
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
        raise
    finally:
        os.close(given)
        if filtered is not None:
            os.close(filtered)
        if info:
            os.close(info[1])
    return Process(child, info[0] if info else None)


def _words(uid: int | None, limits: Limits, info: int | None, filtered: int | None) -> list[str]:
    if info is None:
        return [sys.executable, "-I", "-S", "-c", BOOT]
    python = _python()
    request = {
        "uid": uid,
        "scratch_bytes": limits.scratch_bytes,
        "scratch_files": limits.scratch_files,
        "words": [*_bubblewrap_words(info, filtered), python, "-I", "-S", "-c", BOOT],
    }
    launcher = (HERE / "launcher.py").read_text(encoding="utf-8")
    return [python, "-I", "-S", "-c", launcher, json.dumps(request)]


def _bubblewrap_words(info: int, filtered: int | None) -> list[str]:
    bubblewrap = shutil.which("bwrap")
    assert bubblewrap is not None, "why_not_isolated() is asked first"
    words = [bubblewrap, "--unshare-user", "--unshare-all", "--disable-userns"]
    words += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
    words += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/scratch"]
    words += ["--setenv", "TMPDIR", "/scratch", "--setenv", "PYTHONHASHSEED", "0"]
    words += ["--info-fd", str(info), "--ro-bind", "/usr", "/usr"]
    if filtered is not None:
        words += ["--seccomp", str(filtered)]
    for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    prefix = str(Path(_python()).resolve().parents[1])
    if not prefix.startswith("/usr"):
        words += ["--ro-bind", prefix, prefix]
    words += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    return [*words, "--bind", "@SCRATCH", "/scratch", "--chdir", "/scratch", "--remount-ro", "/"]


@cache
def _python() -> str:
    """An interpreter that every user may run: the one this environment was made from, or the
    system's. Raises IsolationUnavailable where neither will do."""
    base = getattr(sys, "_base_executable", sys.executable)
    for candidate in (os.path.realpath(base), "/usr/local/bin/python3", "/usr/bin/python3"):
        if os.path.isfile(candidate) and _open_to_all(Path(candidate)):  # noqa: PTH113
            return candidate
    raise IsolationUnavailable(
        f"the Python of this environment ({base}) lies in a folder that other users may not enter, "
        "and there is no /usr/bin/python3 to run code with"
    )


def _open_to_all(path: Path) -> bool:
    if os.getuid() != 0:
        return os.access(path, os.X_OK)
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])


@cache
def _sources(main_module: str) -> list[tuple[str, str]]:
    return [
        (f"rewards.sandbox.{name}", (HERE / f"{name}.py").read_text(encoding="utf-8"))
        for name in MODULES[main_module]
    ]


def _read_only_memory(content: bytes) -> int:
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
    return None if program is None else _read_only_memory(program)


_uid_lock = threading.Lock()
_uids_in_use: set[int] = set()


@contextlib.contextmanager
def _unused_uid() -> Generator[int | None]:
    """None for an ordinary user; for root an id that no process on this machine has, so that a
    limit on the user's processes counts the sandbox's alone. It stays ours until the launcher, and
    then the processes themselves, hold it."""
    if os.getuid() != 0:
        yield None
        return
    with _uid_lock:
        running = {entry.stat().st_uid for entry in _processes()} | _uids_in_use
        first, count = _uid_range()
        # Spread by process, so that two of ours do not meet between looking and starting.
        offset = os.getpid() * 256 + len(_uids_in_use) + next(_turn)
        uid = next(
            uid for i in range(count) if (uid := first + (offset + i) % count) not in running
        )
        _uids_in_use.add(uid)
    try:
        yield uid
    finally:
        with _uid_lock:
            _uids_in_use.discard(uid)


def _count_up() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


_turn = _count_up()


def _processes() -> Iterator[os.DirEntry[str]]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(FileNotFoundError):
                    entry.stat()
                    yield entry


@cache
def _uid_range() -> tuple[int, int]:
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
        raise IsolationUnavailable(
            "we are root in a user namespace that maps no other ids, so code cannot be run as "
            "another user"
        )
    # The top of a small range holds nobody (65534).
    return first + count - usable - 16, usable


@cache
def why_not_isolated() -> str | None:
    """None where a sandbox starts on this machine, else why it does not. Asked once a process."""
    if sys.platform != "linux":
        return f"namespaces are a part of Linux, and this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian and Ubuntu: apt-get install bubblewrap)"
    try:
        return _probe()
    except IsolationUnavailable as error:
        return str(error)


def _probe() -> str | None:
    filtered = _filter_of_calls()
    words = _words_of_probe(filtered)
    try:
        with _unused_uid() as uid:
            words[-1] = json.dumps({**json.loads(words[-1]), "uid": uid})
            done = subprocess.run(
                words,
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
    if done.stdout == "inside\n":
        return None
    said = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return (
        f"a sandbox does not start here: {said[:300]}. bubblewrap 0.8 or newer and unprivileged "
        "user namespaces are needed (sysctl kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns; containers need a seccomp profile that "
        "allows them)"
    )


def _words_of_probe(filtered: int | None) -> list[str]:
    words = _words(None, Limits(), 2, filtered)
    request = json.loads(words[-1])
    boot = request["words"].index("-c")
    inside = request["words"][:boot]
    at = inside.index("--info-fd")
    del inside[at : at + 2]
    return [*words[:-1], json.dumps({**request, "words": [*inside, "-c", "print('inside')"]})]
