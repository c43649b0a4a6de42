"""The machine: sandboxes, memory, disk, shared memory, open files."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from rewards.sandbox.isolation import why_not_isolated
from trainer.runtime.doctor.findings import Finding, limited, missing, ok

MIB, GIB = 1 << 20, 1 << 30
LEAST_MEMORY, ENOUGH_MEMORY = 1 * GIB, 4 * GIB
LEAST_DISK, ENOUGH_DISK = 1 * GIB, 10 * GIB
ENOUGH_SHARED = 512 * MIB
LEAST_FILES, ENOUGH_FILES = 256, 1024
# Switches of the kernel that forbid user namespaces, and the value that does.
SWITCHES = {
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
    "user/max_user_namespaces": "0",
}


def check_sandbox(why_not: Callable[[], str | None] = why_not_isolated) -> Finding:
    """Whether a program that a model wrote can run isolated: a sandbox is started."""
    reason = why_not()
    if reason is None:
        return ok("sandbox", "bubblewrap starts a sandbox with its own namespaces")
    switches = forbidding_switches(Path("/proc/sys"))
    if shutil.which("bwrap") is None:
        reason, mend = "bubblewrap is not installed", "apt-get install bubblewrap (Debian, Ubuntu)"
    elif switches:
        settings = " ".join(f"{name}={value}" for name, value in switches)
        mend = f"sysctl -w {settings} (as root)"
    else:
        mend = "in a container, allow user namespaces (Docker: --security-opt seccomp=unconfined)"
    return limited("sandbox", f"the task and the verifier `code` do not run: {reason}", mend)


def forbidding_switches(folder: Path) -> list[tuple[str, str]]:
    """(name, value that allows namespaces) of the kernel's switches that forbid them."""
    found: list[tuple[str, str]] = []
    for path, forbids in SWITCHES.items():
        file = folder / path
        if file.is_file() and file.read_text().strip() == forbids:
            allows = {"0": "1", "1": "0"}[forbids]
            found.append((path.replace("/", "."), "10000" if "max" in path else allows))
    return found


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can still take: of the machine, and of its container's limit.
    -1 where the machine does not say."""
    try:
        text = (proc / "meminfo").read_text()
        free = next(int(line.split()[1]) for line in text.splitlines() if "MemAvailable" in line)
    except (OSError, StopIteration):
        return -1
    free *= 1024
    try:
        limit = (groups / "memory.max").read_text().strip()
        used = int((groups / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def check_memory(available: int) -> Finding:
    if available < 0:
        return ok("memory", "the machine does not say how much is free")
    found = f"{size(available)} are free"
    if available < LEAST_MEMORY:
        return missing("memory", f"{found}; the smallest recipes need 1 GiB", "end other programs")
    if available < ENOUGH_MEMORY:
        return limited(
            "memory",
            f"{found}: enough for small models",
            "run_recipe.py RECIPE --dry-run prints the memory of every stage",
        )
    return ok("memory", found)


def check_disk(
    folder: Path, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> Finding:
    """Free space of the file system that `folder`, which need not exist, is or will be on."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    name = f"disk {folder}"
    if not os.access(place, os.W_OK):
        return missing(name, f"{place} cannot be written", "give output_dir another folder")
    found = f"{size(free := free_bytes(place))} are free"
    if free < LEAST_DISK:
        return missing(
            name,
            f"{found}; the smallest recipes need 1 GiB",
            "delete what is not needed, or give output_dir a folder on another disk",
        )
    if free < ENOUGH_DISK:
        return limited(
            name, f"{found}: enough for small models", "models of 1.5 B weights need 30 GiB"
        )
    return ok(name, found)


def check_room(
    name: str,
    folder: Path,
    variable: str,
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> Finding:
    """Room for files that a stage writes outside its folder; `variable` moves them."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    mend = f"delete what is not needed, or set {variable} to a folder on another disk"
    if not os.access(place, os.W_OK):
        return limited(name, f"{place} cannot be written", mend)
    found = f"{size(free := free_bytes(place))} are free in {folder}"
    return limited(name, found, mend) if free < LEAST_DISK else ok(name, found)


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it loads."""
    caches = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = environment.get("HF_HOME") or Path(caches) / "huggingface"
    return Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def temporary_folder(environment: Mapping[str, str]) -> Path:
    """The folder that the environment names for temporary files; Python silently takes another one
    if that is full."""
    named = (environment.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, named), "/tmp"))


def check_shared_memory(
    folder: Path = Path("/dev/shm"),
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> Finding:
    """Shared memory, through which the processes of one machine exchange tensors."""
    name = "/dev/shm"
    mend = "in a container: docker run --shm-size=8g (or --ipc=host)"
    if not folder.is_dir():
        return limited(name, "does not exist: several processes cannot exchange tensors", mend)
    found = f"{size(free := free_bytes(folder))} are free"
    if free < ENOUGH_SHARED:
        return limited(name, f"{found}: too little for several processes on GPUs", mend)
    return ok(name, found)


def check_open_files(limits: tuple[int, int] | None = None) -> Finding:
    """The most files that a process may have open; a connection counts as one."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    name = "open files"
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return ok(name, "no limit" if soft == resource.RLIM_INFINITY else f"{soft} per process")
    can = hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES
    mend = "ulimit -n 4096" if can else "raise nofile in /etc/security/limits.conf"
    if soft < LEAST_FILES:
        return missing(name, f"{soft} per process; stages need {LEAST_FILES}", mend)
    return limited(name, f"{soft} per process: too few for searches with vLLM servers", mend)


def size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"
