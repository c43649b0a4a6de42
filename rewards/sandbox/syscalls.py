"""A filter of system calls, as a program of classic BPF that bubblewrap gives to the kernel.

Namespaces do not hold everything: a network namespace leaves sockets that are no network (to the
hypervisor, AF_VSOCK; to the kernel's cryptography, AF_ALG), the session keyring is shared, a
process may trace its neighbours and act as they, and no limit counts the memory of files that have
no name, of System V's queues, semaphores and segments, of POSIX's queues. Nothing of this is needed
to solve a problem, so it is refused; all else is allowed. io_uring is refused because it does what
calls do without making them. Linux's seccomp(2) and bpf documentation give the format.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass

LOAD, JUMP_IF_EQUAL, JUMP_IF_NOT_BELOW, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in the kernel's struct seccomp_data
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Calls of x86-64 with 32-bit pointers have numbers of their own from here on.
X32 = 0x40000000
SOCKET_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
# io_uring_setup, io_uring_enter, io_uring_register, pidfd_getfd, process_madvise, memfd_secret,
# quotactl_fd, process_mrelease: of one number everywhere
REFUSED = (425, 426, 427, 438, 440, 447, 443, 448)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The kernel's name of an architecture (`linux/audit.h`) and its numbers of calls."""

    architecture: int
    sockets: tuple[int, ...]  # socket, socketpair
    refused: tuple[int, ...]


MACHINES = {
    "x86_64": Machine(
        architecture=0xC000003E,
        sockets=(41, 53),
        refused=(
            *(248, 249, 250),  # add_key, request_key, keyctl
            319,  # memfd_create
            *(29, 30, 31, 67),  # shmget, shmat, shmctl, shmdt
            *(64, 65, 66, 220),  # semget, semop, semctl, semtimedop
            *(68, 69, 70, 71),  # msgget, msgsnd, msgrcv, msgctl
            *(240, 241, 242, 243, 244, 245),  # mq_open to mq_getsetattr
            *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
            *(298, 321, 323),  # perf_event_open, bpf, userfaultfd
        ),
    ),
    "aarch64": Machine(
        architecture=0xC00000B7,
        sockets=(198, 199),
        refused=(
            *(217, 218, 219),
            279,
            *(194, 195, 196, 197),
            *(190, 191, 192, 193),
            *(186, 187, 188, 189),
            *(180, 181, 182, 183, 184, 185),
            *(117, 270, 271, 272),
            *(241, 280, 282),
        ),
    ),
}


def filter_program(machine: str | None = None) -> bytes | None:
    """The filter for this machine (`os.uname().machine`), or None for one that is not known here:
    its programs run without a filter."""
    known = MACHINES.get(machine or os.uname().machine)
    if known is None or (machine is None and sys.maxsize < 2**32):
        return None
    refused = (*known.refused, *REFUSED)
    no_family = REFUSE | errno.EAFNOSUPPORT
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, known.architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_NOT_BELOW, 0, 1, X32),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
    ]
    for number in refused:
        lines += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    # Past the next jump and the one to the end, to what looks at the family.
    lines += [(JUMP_IF_EQUAL, 2, 0, known.sockets[0]), (JUMP_IF_EQUAL, 1, 0, known.sockets[1])]
    lines += [(RETURN, 0, 0, ALLOW), (LOAD, 0, 0, FIRST_ARGUMENT)]
    for family in SOCKET_FAMILIES:
        lines += [(JUMP_IF_EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    lines.append((RETURN, 0, 0, no_family))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
