"""Runs one stage as a child process: its environment, log, progress line, and clean end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from data.settings import ROOT

GRACE_SECONDS = 20.0  # between SIGTERM and SIGKILL; launchers stop their workers in this time
POLL_SECONDS = 0.2
KEEP_SECONDS = 5.0  # between two writes of the elapsed time
# Lines of libraries and of the launcher that say nothing of how far a stage is.
NOISE = (
    "warnings.warn(",
    "Warning: ",
    "Loading weights:",
    "Writing model shards:",
    "CalledProcessError",
)


def command_line(words: Sequence[str], launcher: Sequence[str]) -> str:
    """The command that a user would type for the same stage, quoted for the shell."""
    return shlex.join([*launcher, *words])


OF_A_SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
SPINS = "10000"  # turns of libgomp's waiting loop, some ten microseconds
LOAD_SECONDS = 0.2  # for which the cores are watched before a stage starts


def child_environment(num_processes: int) -> dict[str, str]:
    """The caller's environment with four changes. The physical cores are divided among the
    processes. If other work needs these cores, waiting threads sleep at once. The checkout comes
    first on the path, so that `data` and `trainer` are never other packages. The run of a W&B sweep
    stays that of the whole recipe (trainer/pipeline/sweep.py)."""
    cores = min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))
    defaults = {"OMP_NUM_THREADS": str(max(1, cores // max(1, num_processes)))} | {
        name: value for name, value in os.environ.items() if name not in OF_A_SWEEP
    }
    threads = int(defaults["OMP_NUM_THREADS"].split(",")[0])
    if threads > 1 and not WAITING & defaults.keys():
        defaults |= waiting_environment(threads * max(1, num_processes))
    fixed = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    return defaults | fixed


WAITING = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"}  # a user's own choice stays


def waiting_environment(threads: int) -> dict[str, str]:
    """How each of `threads` threads waits for the others: it spins for a moment and then sleeps, or
    sleeps at once if other work leaves fewer idle cores than threads.

    By default, libgomp's threads spin for milliseconds. On a core that another process needs too,
    this costs most of the time (tests/benchmarks/busy_machine.py). The number of threads does not
    change with the load, since the sums of a matrix product, and so the results, may depend on it.
    """
    cores = os.sched_getaffinity(0)
    busy = psutil.cpu_percent(LOAD_SECONDS, percpu=True)
    idle = sum(1 - percent / 100 for core, percent in enumerate(busy) if core in cores)
    if idle < threads - 0.5:
        return {"OMP_WAIT_POLICY": "PASSIVE"}
    return {"GOMP_SPINCOUNT": SPINS}


def busy_cores_note(environment: Mapping[str, str]) -> str:
    """What to tell the user about a stage with the environment of `child_environment`; empty unless
    other work made its threads sleep."""
    if "OMP_WAIT_POLICY" in os.environ or environment.get("OMP_WAIT_POLICY") != "PASSIVE":
        return ""
    return (
        "other work keeps the cores busy, so waiting threads sleep; processes of one thread each "
        "are faster then (docs/how-to/several-processes.md)"
    )


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[int]:
    """Lock the folder for this run. Every stage inherits the lock. If the run is killed, the lock
    therefore stays as long as its stage still writes. Raises ValueError while another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"output_dir {str(folder)!r} is in use by another run, or by a stage that one left"
            ) from error
        yield file.fileno()


def run_logged(
    words: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    lock: int,
    say: Callable[[str], None],
    on_poll: Callable[[float], None],
) -> int:
    """Run the command `words` to its end, append its output to `log`, and return the exit status.

    `say` gets the newest log line at every poll, and "starting" before there is one. `on_poll` gets
    the elapsed seconds every few seconds. If this process is interrupted, it ends the child and all
    its descendants before it raises the exception again.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = last_kept = time.monotonic()
    with log.open("ab") as sink, log.open("rb") as reader:
        reader.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            words,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
            pass_fds=(lock,),
        )
        newest = "starting"  # imports come before a stage's first line
        try:
            while child.poll() is None:
                time.sleep(POLL_SECONDS)
                newest = _last_line(reader) or newest
                say(newest)
                if time.monotonic() - last_kept >= KEEP_SECONDS:
                    last_kept = time.monotonic()
                    on_poll(last_kept - started)
        finally:
            end_tree(child)
            on_poll(time.monotonic() - started)
    return child.returncode


def end_tree(child: subprocess.Popen[bytes]) -> None:
    """End a child and its descendants: SIGTERM, `GRACE_SECONDS`, SIGKILL. Distributed launchers
    start workers in new sessions, so this function walks the process tree instead of one group."""
    if child.poll() is not None:
        return
    try:
        family = psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    processes = [psutil.Process(child.pid), *family] if psutil.pid_exists(child.pid) else family
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.wait()


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, without the launcher's own words that the stage failed."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        text = file.read().decode(errors="replace").replace("\r", "\n")
    own, found, launchers = text.rpartition("Traceback (most recent call last):\n")
    if found and own.strip() and "subprocess.CalledProcessError: " in launchers:
        text = own
    return "\n".join(text.splitlines()[-lines:])


def launcher_words(accelerate_config: str | None) -> tuple[list[str], list[str]]:
    """The launcher's command as it runs here, and as a user types it."""
    options = ["--config_file", accelerate_config] if accelerate_config else []
    return (
        [sys.executable, "-m", "accelerate.commands.launch", *options],
        ["accelerate", "launch", *options],
    )


def _last_line(reader: IO[bytes]) -> str:
    text = reader.read().decode(errors="replace").replace("\r", "\n")
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line and not any(n in line for n in NOISE)), "")
