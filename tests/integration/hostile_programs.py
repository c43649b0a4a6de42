# ruff: noqa: E501 (one program a line)
"""Programs that try to do harm or to pass without solving anything, and what became of them.

Run as a script (by whatever user): judges every program and prints one JSON object with the
verdicts and the traces of harm. Nothing but the standard library and this project is needed.

`ATTACKS` return the right values, so that nothing but the attack can fail them: `attack()` raises
or returns something false where it was held, and `got_through()` tells the tests. `FLOODS` never
end by themselves, or may be ended for what they take. `CHEATS` return wrong values, and want them
taken for right.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from data.tasks.code import CodeTests
from data.types import Problem
from rewards.sandbox.groups import places
from rewards.sandbox.isolation import OVERHEAD_BYTES, Limits
from rewards.verifiers.programs import CodeVerifier

LIMITS = Limits(seconds=2, wall_seconds=6, memory_bytes=256 << 20)
VALUES = "def check(f):\n    assert f(3) == 9\n    assert f(4) == 16\n    assert f([1]) == [1, 1]\n"
TESTS = CodeTests(tests=VALUES, names=("f",), check="check")
ATTACK_TESTS = CodeTests(
    tests=VALUES + "    assert not got_through(), 'GOT THROUGH'\n",
    names=("f", "got_through"),
    check="check",
)
HONEST = "def f(x):\n    return x * 2 if isinstance(x, list) else x * x\n"
# What follows an attack: the right values, and whether it got through.
SOLUTION = """
_got = []
def f(x):
    if not _got:
        _got.append(False)
        try:
            _got[0] = bool(attack())
        except Exception:
            pass
    return x * 2 if isinstance(x, list) else x * x
def got_through():
    return _got[0]
"""
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
# An allocation in each of several processes at once; counts the megabytes that they hold.
HOLD_MEMORY = """
import os, time
def attack():
    read, write = os.pipe()
    for _ in range(8):
        if os.fork() == 0:
            held = []
            try:
                while len(held) < 20: held.append(b"x" * (10 << 20))
            except BaseException: pass
            time.sleep(1.5)
            os.write(write, b"x" * len(held))
            os._exit(0)
    os.close(write)
    held = 0
    while chunk := os.read(read, 4096): held += len(chunk)
    return held * (10 << 20) > ALLOWED
"""
# PORT, PARENT, CANARY and ALLOWED are replaced by what must not be reached.
ATTACKS = {
    "nothing": "def attack(): pass\n",
    "50 GB": "def attack(): return bytearray(50 * 10**9)\n",
    "50 GB by and by": "def attack():\n    a = []\n    try:\n        while len(a) < 5000: a.append(bytearray(10**7))\n    except MemoryError: pass\n    return len(a) * 10**7 > LIMIT\n",
    "files of memory": "import os\ndef attack(): return os.memfd_create('a') >= 0\n",
    "secret memory": LIBC + "def attack(): return libc.syscall(447, 0) >= 0\n",
    "buffers of pipes": "import os, fcntl\ndef attack():\n    n = 0\n    try:\n        while True:\n            r, w = os.pipe()\n            n += fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError: pass\n    return n > 32 << 20\n",
    "fork until it fails": "import os, time\ndef attack():\n    n = 0\n    try:\n        while n < 2000:\n            if os.fork() == 0: time.sleep(20); os._exit(0)\n            n += 1\n    except OSError: pass\n    return n > 35\n",
    "threads until it fails": "import threading, time\nthreading.stack_size(1 << 16)\ndef attack():\n    n = 0\n    try:\n        while n < 2000:\n            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\n            n += 1\n    except RuntimeError: pass\n    return n > 35\n",
    "dead children": "import os\ndef attack():\n    n = 0\n    try:\n        while n < 2000:\n            if os.fork() == 0: os._exit(0)\n            n += 1\n    except OSError: pass\n    return n > 35\n",
    "a daemon": "import os, time\ndef attack():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(1000)\n        os._exit(0)\n",
    "write outside the folder": "def attack():\n    with open('CANARY', 'w') as file: return file.write('x')\n",
    "write to the system": "def attack(): return open('/usr/bin/x', 'w').write('x')\n",
    "write to the root folder": "def attack(): return open('/x', 'w').write('x')\n",
    "fill the device folder": "def attack(): return open('/dev/shm/x', 'w').write('x')\n",
    "symlink out of the folder": "import os\ndef attack():\n    os.symlink(os.path.dirname('CANARY'), 'out')\n    return open('out/canary', 'w').write('x')\n",
    "a big file": "def attack():\n    n = 0\n    try:\n        with open('big', 'wb', buffering=0) as file:\n            while n < 10**9: n += file.write(bytes(10**6))\n    except OSError: pass\n    return n > 32 << 20\n",
    "many files": "def attack():\n    n = 0\n    try:\n        for n in range(10**5): open(f'file{n}', 'w').close()\n    except OSError: pass\n    return n > 256\n",
    "read the home folder": "import os\ndef attack():\n    for folder in (os.path.dirname('CANARY'), '/root', '/home'):\n        try: return os.listdir(folder) or True\n        except OSError: pass\n",
    "read the passwords": "def attack(): return open('/etc/shadow').read() or open('/etc/passwd').read()\n",
    "read the environment": "import os\ndef attack(): return 'SECRET' in os.environ or 'SECRET' in open('/proc/1/environ').read()\n",
    "connect": "import socket\ndef attack(): return socket.create_connection(('127.0.0.1', PORT), 1)\n",
    "resolve": "import socket\ndef attack(): return socket.getaddrinfo('example.com', 80)\n",
    "talk to the kernel": "import socket\ndef attack():\n    for family, kind, protocol in ((16, 3, 0), (40, 1, 0), (38, 5, 0), (17, 3, 3)):\n        try: return socket.socket(family, kind, protocol)\n        except OSError: pass\n",
    "kill the parent": "import os, signal\ndef attack(): os.kill(PARENT, signal.SIGKILL); return True\n",
    "kill the first process": "import os, signal, time\ndef attack():\n    os.kill(1, signal.SIGKILL)\n    time.sleep(0.1)\n    return not os.path.exists('/proc/1')\n",
    "look at other processes": "import os\ndef attack(): return os.path.exists('/proc/PARENT/exe') or sum(n.isdigit() for n in os.listdir('/proc')) > 2\n",
    "trace the first process": LIBC + "def attack(): return libc.ptrace(16, 1, 0, 0) == 0 or libc.ptrace(0x4206, 1, 0, 0) == 0\n",
    "be traced": LIBC + "def attack(): return libc.ptrace(0, 0, 0, 0) == 0\n",
    "trace a child": LIBC + "import os, time\ndef attack():\n    pid = os.fork()\n    if pid == 0: time.sleep(9); os._exit(0)\n    return libc.ptrace(16, pid, 0, 0) == 0\n",
    "read the first process's memory": LIBC + "def attack():\n    class V(ctypes.Structure): _fields_ = [('a', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n    base = int(open('/proc/1/maps').read().split('-')[0], 16)\n    b = ctypes.create_string_buffer(8)\n    return libc.process_vm_readv(1, ctypes.byref(V(ctypes.addressof(b), 8)), 1, ctypes.byref(V(base, 8)), 1, 0) > 0\n",
    "write the first process's memory": "def attack(): return open('/proc/1/mem', 'r+b')\n",
    "take the first process's files": LIBC + "import os\ndef attack():\n    fd = os.pidfd_open(1)\n    return libc.syscall(438, fd, 0, 0) >= 0\n",
    "the first process's limits": "def attack():\n    lines = open('/proc/1/limits').read().splitlines()\n    return any(line.startswith(name) and 'unlimited' in line for line in lines for name in ('Max cpu', 'Max address', 'Max processes', 'Max open', 'Max file size', 'Max msgqueue'))\n",
    "raise the first process's limits": "import resource\ndef attack(): resource.prlimit(1, resource.RLIMIT_AS, (-1, -1)); return True\n",
    "higher limits": "import resource\ndef attack(): resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return True\n",
    "other semaphores": LIBC + "def attack(): return libc.semget(0, 100, 0o1600) >= 0\n",
    "shared segments": LIBC + "def attack(): return libc.shmget(0, 1 << 20, 0o1600) >= 0\n",
    "queues": LIBC + "def attack(): return libc.msgget(0, 0o1600) >= 0\n",
    "POSIX queues": LIBC + "import os\ndef attack():\n    number = {'x86_64': 240, 'aarch64': 180}[os.uname().machine]\n    return libc.syscall(number, b'q', 0o102, 0o600, None) >= 0\n",
    "keyrings": LIBC + "import os\ndef attack():\n    number = {'x86_64': 248, 'aarch64': 217}[os.uname().machine]\n    return libc.syscall(number, b'user', b'a', b'b', 1, -3) >= 0\n",
    "io_uring": LIBC + "def attack(): return libc.syscall(425, 1, ctypes.create_string_buffer(120)) >= 0\n",
    "not to be the first to go": "def attack():\n    for name in ('self', '1', 'thread-self'):\n        try: open(f'/proc/{name}/oom_score_adj', 'w').write('0')\n        except OSError: pass\n    return open('/proc/self/oom_score_adj').read() != '1000\\n' or open('/proc/1/oom_score_adj').read() != '1000\\n'\n",
    "change the kernel": "import glob\ndef attack():\n    for name in glob.glob('/proc/sys/kernel/*')[:200] + ['/proc/sysrq-trigger']:\n        try: open(name, 'r+'); return True\n        except OSError: pass\n",
    "leave the control group": "def attack(): return open('/sys/fs/cgroup/cgroup.procs', 'w').write('0')\n",
    "become root": "import os\ndef attack(): os.setuid(0); return True\n",
    "new namespaces": LIBC + "def attack(): return libc.unshare(0x10000000) == 0 or libc.unshare(0x20000000) == 0\n",
    "mount": LIBC + "def attack(): return libc.mount(b'tmpfs', b'/scratch', b'tmpfs', 0, b'') == 0\n",
    "mount again": LIBC + "def attack(): return libc.mount(b'none', b'/proc', None, 32 | 4096, None) == 0 or libc.umount2(b'/proc', 2) == 0\n",
    "a device": "import os\ndef attack(): os.mknod('disk', 0o60600, os.makedev(8, 0)); return True\n",
    "ahead of others": "import os\ndef attack(): os.setpriority(os.PRIO_PROCESS, 0, -20); return True\n",
    "real time": "import os\ndef attack(): os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); return True\n",
    "ignored signals": "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef attack(): pass\n",
    "at its end": "import atexit, os\natexit.register(lambda: os.write(1, b'[\"passed\", \"\"]\\n'))\ndef attack(): pass\n",
    "look for the tests": "import gc, sys\ndef attack():\n    texts = [str(o) for o in gc.get_objects() if isinstance(o, (str, list, dict))][:10**5] + [open('/proc/self/cmdline').read()]\n    texts += [str(f.f_locals) for f in sys._current_frames().values()]\n    return any('assert f' + chr(40) + '3' in text for text in texts)\n",
    "huge output": "def attack():\n    for _ in range(1000): print('x' * 10**6)\n",
}  # fmt: skip
FLOODS = {
    "memory of many processes": HOLD_MEMORY,
    "endless loop": "def attack():\n    while True: pass\n",
    "endless loop while being defined": "while True: pass\n",
    "a sleeper": "import time\ndef attack(): time.sleep(1000)\n",
    "fork bomb": "import os\ndef attack():\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    "fork bomb of threads": "import threading, time\ndef attack():\n    while True:\n        try: threading.Thread(target=time.sleep, args=(99,)).start()\n        except (RuntimeError, MemoryError): pass\n",
    "memory of a fork bomb": "import os\ndef attack():\n    a = []\n    while True:\n        try:\n            os.fork()\n            a.append(b'x' * 10**7)\n        except (OSError, MemoryError): pass\n",
    "sleep, then fork at the deadline": "import os, time\ndef attack():\n    time.sleep(5.5)\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    "deep recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef attack(): return [attack()]\n",
    "kill everything": "import os, signal\ndef attack():\n    for pid in (os.getppid(), 1, -1, os.getpid()):\n        try: os.kill(pid, signal.SIGKILL)\n        except OSError: pass\n",
    "huge answer without an end": "import os\ndef attack():\n    while True:\n        for n in range(3, 32):\n            try: os.write(n, b'x' * 10**5)\n            except OSError: pass\n",
}  # fmt: skip
CHEATS = {
    "sys.exit(0)": "import sys\ndef f(x):\n    sys.exit(0)\n",
    "sys.exit(0) while being defined": "import sys\nsys.exit(0)\n",
    "os._exit(0)": "import os\ndef f(x):\n    os._exit(0)\n",
    "os._exit(0) while being defined": "import os\nos._exit(0)\n",
    "patched equality": "class I(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x):\n    return I(1)\n",
    "equal to everything": "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return E()\n",
    "a list equal to everything": "class L(list):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\ndef f(x):\n    return L()\n",
    "overwrite the test": "import sys, builtins\ndef f(x):\n    for m in list(sys.modules.values()):\n        m.__dict__['check'] = lambda g: None\n        m.__dict__['verdict'] = lambda *a: ('passed', '')\n    return 1\n",
    "fake all passed": "import sys\ndef f(x):\n    print('[\"passed\", \"\"]')\n    print('all passed', file=sys.stderr)\n    sys.__stdout__.write('[\"passed\", \"\"]\\n')\n    return 1\n",
    "fake verdict on every file": "import os\ndef f(x):\n    for n in range(256):\n        try: os.write(n, b'[\"passed\", \"\"]\\n')\n        except OSError: pass\n    return 1\n",
    "answers in advance": "import os\nfor n in range(3, 64):\n    try: os.write(n, b'[\"list\", [[\"str\", \"value\"], [\"int\", \"9\"]]]\\n' * 50)\n    except OSError: pass\ndef f(x):\n    return 9\n",
    "deep recursion": "def f(x):\n    return f(x)\n",
    "deep nesting of the answer": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a\n",
    "huge answer": "def f(x):\n    return 'x' * 10**8\n",
    "import the harness": "import rewards.sandbox.run_tests\ndef f(x):\n    return 1\n",
    "change the harness": "import sys\nm = sys.modules['rewards.sandbox.run_program']\nm.dumps = lambda value: '[\"str\", \"passed\"]'\ndef f(x):\n    return 1\n",
    "monkeypatched builtins": "import builtins\nbuiltins.type = lambda *a: int\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda *a: 1\ndef f(x):\n    return 1\n",
    "a pickle in the channel": "import os, pickle\nclass P:\n    def __reduce__(self): return (os.system, ('touch CANARY',))\ndata = pickle.dumps(P())\ndef f(x):\n    for n in range(3, 32):\n        try: os.write(n, data + b'\\n')\n        except OSError: pass\n    return data\n",
    "a generator": "def f(x):\n    yield x * x\n",
    "nothing at all": "def f(x):\n    pass\n",
    "its argument emptied": "def f(x):\n    if isinstance(x, list): x.clear()\n    return x\n",
    "a class in the function's place": "class f:\n    def __init__(self, x): pass\n    __eq__ = __contains__ = __bool__ = lambda *a: True\n    __hash__ = None\n",
    "changed objects that are not its own": "import sys\nm = sys.modules['rewards.sandbox.run_program']\ndef f(x):\n    for o in __import__('gc').get_objects():\n        if isinstance(o, m.Objects): o._said.clear(); o._next = 0\n    return [x]\n",
}  # fmt: skip


def processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208


def commands(pids: set[int]) -> list[str]:
    found: list[str] = []
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "bwrap" in words or "import json, os, resource" in words:
            found.append(words[:60])
    return found


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    canary = folder / "canary"
    canary.write_text("unharmed")
    server = socket.create_server(("127.0.0.1", 0))
    connected: list[str] = []
    threading.Thread(target=lambda: connected.append(str(server.accept()[1])), daemon=True).start()
    os.environ["SECRET"] = "s"
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    files_before, before = set(os.listdir("/tmp")), processes()  # noqa: PTH208
    verifier = CodeVerifier(limits=LIMITS)
    allowed = LIMITS.memory_bytes + LIMITS.scratch_bytes + OVERHEAD_BYTES
    replaced = {
        "PORT": server.getsockname()[1],
        "PARENT": parent.pid,
        "CANARY": canary,
        "LIMIT": LIMITS.memory_bytes,
        # Without a control group only the number of processes limits what they hold together.
        "ALLOWED": allowed if places() else 10**12,
    }
    verdicts: dict[str, dict[str, list[str]]] = {}
    slowest = 0.0
    for kind, programs in (
        ("honest", {"honest": HONEST}),
        ("attacks", {name: program + SOLUTION for name, program in ATTACKS.items()}),
        ("floods", {name: program + SOLUTION for name, program in FLOODS.items()}),
        ("cheats", CHEATS),
        ("honest", {"honest again": HONEST}),
    ):
        tests = ATTACK_TESTS if kind in ("attacks", "floods") else TESTS
        problem = Problem(id="p", prompt="square", answer=tests.to_answer())
        for name, program in programs.items():
            for word, value in replaced.items():
                program = program.replace(word, str(value))
            started = time.monotonic()
            verdict = verifier.verify(problem, program)
            slowest = max(slowest, time.monotonic() - started)
            verdicts.setdefault(kind, {})[name] = [verdict.outcome.value, verdict.reason]
    files_after = {name for name in os.listdir("/tmp") if (Path("/tmp") / name).exists()}  # noqa: PTH208
    found = {
        "user": os.getuid(),
        "group": bool(places()),
        "verdicts": verdicts,
        "left_running": commands(processes() - before),
        "new_files": sorted(name for name in files_after - files_before if "canary" in name),
        "folder": sorted(path.name for path in folder.iterdir()),
        "canary": canary.read_text(),
        "connected": connected,
        "parent_alive": parent.poll() is None,
        "slowest": slowest,
    }
    parent.communicate(b"\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
