"""Becomes an unused user, gets a small scratch folder and its limits, and starts bubblewrap. Run as
a script.

It stays, without an open file, until all processes of bubblewrap's are gone, and takes in those
that bubblewrap leaves: the first process of a machine does not everywhere (containers).

The one argument is JSON: `uid` (null: stay who you are), `joins` (files of control groups),
`limits` (of resources, by name), `scratch` (a folder that is covered by the scratch folder, in a
mount namespace of our own: the real one is untouched), `scratch_bytes`, `scratch_files`, `words`
(bubblewrap's command line). Standard library
only, and nothing of this project: it runs under the system's Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 1 << 14, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36


def main() -> None:
    request = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    uid = request["uid"]
    for file in request["joins"]:
        _write(file, "0")
    # Short of memory, the machine takes this first. What root has written nobody else lowers.
    _write("/proc/self/oom_score_adj", "1000")
    if uid is not None:
        # Limits on processes do not bind root, whatever a namespace calls it.
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self stays root's
    user, group = os.getuid(), os.getgid()
    if user == 0:
        sys.exit("code is not run as root")
    _check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")
    options = f"size={request['scratch_bytes']},nr_inodes={request['scratch_files']},mode=700"
    mounted = libc.mount(
        b"tmpfs", request["scratch"].encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode()
    )
    _check(mounted, "mount the scratch folder")
    words = request["words"]
    os.chdir("/")
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the parent")
    _check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "take in what is left")
    if os.fork() != 0:
        # Asked to end, bubblewrap does, and we when it has.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _wait_for_all()
        return
    # For bubblewrap too, which has the first process of the namespace.
    for name, value in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    os.execve(words[0], words, {"PATH": "/usr/bin:/bin"})


def _wait_for_all() -> None:
    # Else nobody who reads from a pipe would see that the sandbox has ended.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            os.close(int(name))
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 (start-up time: no pathlib)
        file.write(text)


def _check(status: int, what: str) -> None:
    if status != 0:
        sys.exit(f"{what} failed: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
