# ruff: noqa: E501 (one program a line)
"""Programs that try to do harm or to pass without solving anything, and what became of them.

Run as a script (by whatever user): judges every program and prints one JSON object with the
verdicts and the traces of harm. Nothing but the standard library and this project is needed.
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
from rewards.sandbox.isolation import Limits
from rewards.verifiers.programs import CodeVerifier

SECONDS = 2.0
TESTS = CodeTests(
    tests="def check(f):\n    assert f(3) == 9\n    assert f(4) == 16\n    assert f([1]) == [1, 1]\n",
    names=("f",),
    check="check",
)
PROBLEM = Problem(id="p", prompt="square", answer=TESTS.to_answer())
HONEST = "def f(x):\n    return x * 2 if isinstance(x, list) else x * x\n"
# PORT, PARENT and CANARY are replaced by what must not be reached.
PROGRAMS = {
    "endless loop": "def f(x):\n    while True: pass\n",
    "endless loop while being defined": "while True: pass\n",
    "fork bomb": "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    "fork bomb of threads": "import threading, time\ndef f(x):\n    while True:\n        threading.Thread(target=time.sleep, args=(99,)).start()\n",
    "50 GB": "def f(x):\n    a = bytearray(50 * 10**9)\n    return x * x\n",
    "50 GB by and by": "def f(x):\n    a = []\n    while True: a.append(bytearray(10**7))\n",
    "50 GB in files of memory": "import os\ndef f(x):\n    while True:\n        try: os.write(os.memfd_create('a'), bytes(10**7))\n        except OSError: pass\n",
    "write outside the folder": "def f(x):\n    open('CANARY', 'w').write('x')\n    return x * x\n",
    "write to the system": "def f(x):\n    open('/usr/bin/x', 'w').write('x')\n    return x * x\n",
    "fill the device folder": "def f(x):\n    open('/dev/shm/x', 'w').write('x')\n    return x * x\n",
    "read the home folder": "import os\ndef f(x):\n    found = os.listdir(os.path.dirname('CANARY')) + os.listdir('/root') + os.listdir('/home')\n    return x * x\n",
    "read the passwords": "def f(x):\n    open('/etc/shadow').read()\n    return x * x\n",
    "read the environment": "import os\ndef f(x):\n    os.environ['SECRET']\n    return x * x\n",
    "connect": "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', PORT), 1)\n    return x * x\n",
    "resolve": "import socket\ndef f(x):\n    socket.getaddrinfo('example.com', 80)\n    return x * x\n",
    "kill the parent": "import os, signal\ndef f(x):\n    for pid in (PARENT, os.getppid(), 1, -1):\n        try: os.kill(pid, signal.SIGKILL)\n        except OSError: pass\n    os._exit(0)\n",
    "look at other processes": "import os\ndef f(x):\n    assert os.path.exists('/proc/PARENT/exe')\n    return x * x\n",
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
    "a daemon": "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(1000)\n        os._exit(0)\n    return 1\n",
    "deep recursion": "def f(x):\n    return f(x)\n",
    "deep recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return [f(x)]\n",
    "deep nesting of the answer": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a\n",
    "huge output": "import sys\ndef f(x):\n    while True: print('x' * 10**6)\n",
    "huge answer": "def f(x):\n    return 'x' * 10**8\n",
    "huge answer without an end": "import os\ndef f(x):\n    while True:\n        for n in range(3, 32):\n            try: os.write(n, b'x' * 10**5)\n            except OSError: pass\n",
    "huge file": "def f(x):\n    with open('big', 'wb') as file:\n        while True: file.write(bytes(10**6))\n",
    "many files": "def f(x):\n    for i in range(10**7): open(f'file{i}', 'w').close()\n    return x * x\n",
    "zombies": "import os\ndef f(x):\n    for _ in range(10**4):\n        if os.fork() == 0: os._exit(0)\n    return x * x\n",
    "ignored signals": "import signal, os\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef f(x):\n    while True: pass\n",
    "symlink out of the folder": "import os\ndef f(x):\n    os.symlink(os.path.dirname('CANARY') or '/', 'out')\n    open('out/canary', 'w').write('x')\n    return x * x\n",
    "import the harness": "import rewards.sandbox.run_tests\ndef f(x):\n    return 1\n",
    "change the harness": "import sys\nm = sys.modules['rewards.sandbox.run_program']\nm.dumps = lambda value: '[\"str\", \"passed\"]'\ndef f(x):\n    return 1\n",
    "monkeypatched builtins": "import builtins\nbuiltins.type = lambda *a: int\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda *a: 1\ndef f(x):\n    return 1\n",
    "atexit": "import atexit, os\natexit.register(lambda: os.write(1, b'[\"passed\", \"\"]\\n'))\ndef f(x):\n    return 1\n",
    "sleep, then fork at the deadline": f"import os, time\ndef f(x):\n    time.sleep({SECONDS} - 0.3)\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    "a pickle in the channel": "import os, pickle\nclass P:\n    def __reduce__(self): return (os.system, ('touch CANARY',))\ndata = pickle.dumps(P())\ndef f(x):\n    for n in range(3, 32):\n        try: os.write(n, data + b'\\n')\n        except OSError: pass\n    return data\n",
    "become root": "import os\ndef f(x):\n    os.setuid(0)\n    return x * x\n",
    "new namespaces": "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).unshare(0x10000000) != 0: raise OSError\n    return x * x\n",
    "mount": "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).mount(b'tmpfs', b'/scratch', b'tmpfs', 0, b'') != 0: raise OSError\n    return x * x\n",
    "higher limits": "import resource\ndef f(x):\n    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n    return x * x\n",
    "trace the parent": "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).ptrace(16, 1, 0, 0) != 0: raise OSError\n    return x * x\n",
    "a generator": "def f(x):\n    yield x * x\n",
    "nothing": "def f(x):\n    pass\n",
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
    verifier = CodeVerifier(limits=Limits(seconds=SECONDS, wall_seconds=SECONDS))
    verdicts: dict[str, list[str]] = {}
    slowest = 0.0
    for name, program in {"honest": HONEST, **PROGRAMS, "honest again": HONEST}.items():
        for word, value in (
            ("PORT", server.getsockname()[1]), ("PARENT", parent.pid), ("CANARY", canary)
        ):  # fmt: skip
            program = program.replace(word, str(value))
        started = time.monotonic()
        verdict = verifier.verify(PROBLEM, program)
        slowest = max(slowest, time.monotonic() - started)
        verdicts[name] = [verdict.outcome.value, verdict.reason]
    files_after = {name for name in os.listdir("/tmp") if (Path("/tmp") / name).exists()}  # noqa: PTH208
    found = {
        "user": os.getuid(),
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
