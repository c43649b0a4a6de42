"""The filter of system calls: what it says of each call, and what a program meets inside."""

from __future__ import annotations

import os
import struct

import pytest

from data.tasks.code import CodeTests
from data.types import Problem
from rewards.sandbox.isolation import Limits, why_not_isolated
from rewards.sandbox.syscalls import MACHINES, filter_program
from rewards.verifiers.programs import CodeVerifier

ALLOW, EPERM, EAFNOSUPPORT, KILL = 0x7FFF0000, 0x00050001, 0x00050061, 0x80000000
X86, ARM = ("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)


def decision(machine: str, architecture: int, number: int, argument: int = 0) -> int:
    """Runs the filter as the kernel would, on one call."""
    program = filter_program(machine)
    assert program is not None
    lines = list(struct.iter_unpack("=HBBI", program))
    # number, architecture, instruction pointer, six arguments
    call = struct.pack("=IIQ6Q", number, architecture, 0, argument, *[0] * 5)
    at = loaded = 0
    while True:
        code, if_true, if_false, value = lines[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            [loaded] = struct.unpack_from("=I", call, value)
        else:
            holds = loaded == value if code == 0x15 else loaded >= value
            assert code in (0x15, 0x35)
            at += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "number", "argument", "expected"),
    [
        (X86, 0, 0, ALLOW),  # read
        (X86, 59, 0, ALLOW),  # execve
        (X86, 41, 1, ALLOW),  # socket(AF_UNIX)
        (X86, 41, 2, ALLOW),
        (X86, 41, 10, ALLOW),
        (X86, 41, 40, EAFNOSUPPORT),  # AF_VSOCK
        (X86, 41, 38, EAFNOSUPPORT),  # AF_ALG
        (X86, 41, 0, EAFNOSUPPORT),
        (X86, 41, 0xFFFFFFFF, EAFNOSUPPORT),
        (X86, 41, 40 + (1 << 32), EAFNOSUPPORT),  # the kernel looks at the low half alone
        (X86, 53, 1, ALLOW),  # socketpair
        (X86, 53, 40, EAFNOSUPPORT),
        (X86, 250, 0, EPERM),  # keyctl
        (X86, 248, 0, EPERM),
        (X86, 249, 0, EPERM),
        (X86, 425, 0, EPERM),  # io_uring_setup
        (X86, 319, 0, EPERM),  # memfd_create
        (X86, 101, 16, EPERM),  # ptrace
        (X86, 310, 0, EPERM),  # process_vm_readv
        (X86, 311, 0, EPERM),  # process_vm_writev
        (X86, 438, 0, EPERM),  # pidfd_getfd
        (X86, 64, 0, EPERM),  # semget
        (X86, 29, 0, EPERM),  # shmget
        (X86, 68, 0, EPERM),  # msgget
        (X86, 240, 0, EPERM),  # mq_open
        (X86, 0x40000000 + 41, 1, EPERM),  # x32's socket
        (ARM, 63, 0, ALLOW),  # read
        (ARM, 41, 40, ALLOW),  # pivot_root there
        (ARM, 198, 2, ALLOW),
        (ARM, 198, 40, EAFNOSUPPORT),
        (ARM, 199, 1, ALLOW),
        (ARM, 219, 0, EPERM),
        (ARM, 217, 0, EPERM),
        (ARM, 426, 0, EPERM),
        (ARM, 117, 16, EPERM),  # ptrace
        (ARM, 190, 0, EPERM),  # semget
        (ARM, 194, 0, EPERM),  # shmget
        (ARM, 186, 0, EPERM),  # msgget
        (ARM, 180, 0, EPERM),  # mq_open
        (ARM, 220, 0, ALLOW),  # clone
        (ARM, 221, 0, ALLOW),  # execve
    ],
)
def test_decisions(machine: tuple[str, int], number: int, argument: int, expected: int) -> None:
    assert decision(*machine, number, argument) == expected


def test_calls_of_another_architecture_end_the_process() -> None:
    assert decision("x86_64", 0x40000003, 3) == KILL  # i386, whose 3 is read
    assert decision("aarch64", X86[1], 0) == KILL
    assert filter_program("riscv64") is None
    assert all(len(filter_program(name) or b"") < 8 * 4096 for name in MACHINES)


INSIDE = """
import ctypes, errno, mmap, os, socket, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
def f(machine):
    found = []
    for family in (1, 2, 10, 15, 16, 31, 38, 40):
        try:
            socket.socket(family, socket.SOCK_STREAM if family in (1, 2, 10, 40) else 3).close()
        except OSError as error:
            found.append((family, errno.errorcode[error.errno]))
    keyctl = 250 if machine == "x86_64" else 219
    for number in (keyctl, 425):
        libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 5)
        found.append(errno.errorcode[ctypes.get_errno()])
    try:
        os.memfd_create("x")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
    return found
def usual():
    left, right = socket.socketpair()
    left.send(b"a")
    thread = threading.Thread(target=right.recv, args=(1,))
    thread.start()
    thread.join()
    mmap.mmap(-1, 4096)[0] = 1
    open("file", "w").close()
    return subprocess.run(["/bin/echo", "a"], capture_output=True, text=True).stdout
"""


def test_inside() -> None:
    reason = why_not_isolated()
    if reason is not None:
        if os.environ.get("THINKTREE_REQUIRE_SANDBOX") == "1":
            pytest.fail(f"THINKTREE_REQUIRE_SANDBOX=1, but {reason}")
        pytest.skip(reason)
    machine = os.uname().machine
    if machine not in MACHINES:
        pytest.skip(f"no filter for {machine}")
    refused = [(family, "EAFNOSUPPORT") for family in (15, 16, 31, 38, 40)]
    tests = CodeTests(
        tests=f"found = f({machine!r})\nassert found == {[*refused, *['EPERM'] * 3]!r}, found\n"
        "assert usual() == 'a\\n'",
        names=("f", "usual"),
    )
    problem = Problem(id="p", prompt="", answer=tests.to_answer())
    verdict = CodeVerifier(limits=Limits(seconds=20)).verify(problem, INSIDE)
    assert verdict.correct, verdict.reason
