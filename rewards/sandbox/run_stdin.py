"""Inside the sandbox: runs a program once for each input, as a script that reads and prints.

Every run is a process of its own, with the input as its standard input and a file for what it
prints. What was printed goes to standard output, one JSON line a run: [how it ended, what it
printed, what is said of it]. What is expected never comes here.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from typing import Any, NoReturn

from rewards.sandbox.choice import Step, choose_steps
from rewards.sandbox.literals import MAX_BYTES
from rewards.sandbox.run_program import new_module, said_of

# Of its seconds, from which on a killed program was killed for them: the kernel counts by ticks.
NEAR = 0.7


def main(init: dict[str, Any]) -> None:
    """`init` holds `readings` (`rewards.sandbox.choice`), `inputs` (a file number) and `sizes`, the
    bytes of each input in it."""
    report_to = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    try:
        steps = choose_steps(init["readings"], [])
    except BaseException as error:
        _report(report_to, "unreadable", "", said_of(error))
        return
    _report(report_to, "ready", "", "")
    at = 0
    for size in init["sizes"]:
        given = os.pread(init["inputs"], size, at)
        at += size
        _report(report_to, *_run(steps, given, init["limits"]["RLIMIT_CPU"], report_to))


def _report(handle: int, *said: str) -> None:
    data = memoryview(json.dumps(said).encode() + b"\n")
    while data:
        data = data[os.write(handle, data) :]


def _run(steps: list[Step], given: bytes, seconds: int, report_to: int) -> tuple[str, str, str]:
    read, write = os.pipe()  # what is said of an exception
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
        stdin.write(given)
        stdin.seek(0)
        child = os.fork()
        if child == 0:
            os.close(report_to)
            os.dup2(stdin.fileno(), 0)
            os.dup2(stdout.fileno(), 1)
            _be_a_script(steps, write)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            _, status, used = os.wait4(child, 0)
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)
            os.set_blocking(said.fileno(), False)
            reason = (said.read(200) or b"").decode("utf-8", "replace")
        stdout.seek(0)
        printed = stdout.read(MAX_BYTES + 1)
    if os.WIFSIGNALED(status) and used.ru_utime + used.ru_stime >= NEAR * seconds:
        return "out of time", "", ""
    if status != 0:
        return "failed", "", reason or "ends before it is done"
    if len(printed) > MAX_BYTES:
        return "failed", "", f"prints more than {MAX_BYTES} bytes"
    return "done", printed.decode("utf-8", "replace"), ""


def _be_a_script(steps: list[Step], say_to: int) -> NoReturn:
    os.setsid()
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__ = sys.stdin, sys.stdout  # pyright: ignore
    sys.argv = ["program"]
    module = new_module("__main__")
    code = 0
    try:
        for step in steps:
            exec(step.code, module)
        shut_down: Any = getattr(threading, "_shutdown", None)
        if shut_down is not None:
            shut_down()  # waits for threads, as the end of a script does
    except SystemExit:
        pass
    except BaseException as error:
        code = 1
        os.write(say_to, said_of(error).encode())
    try:
        run_at_exit: Any = getattr(atexit, "_run_exitfuncs", None)
        if run_at_exit is not None:
            run_at_exit()
        sys.stdout.flush()
    except BaseException as error:
        code = 1
        os.write(say_to, said_of(error).encode())
    os._exit(code)
