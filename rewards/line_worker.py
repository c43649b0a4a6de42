"""The main loop of a worker process that answers one line of JSON with another."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any


def answer_lines(answer: Callable[[str], dict[str, Any]], memory_bytes: int) -> None:
    """Print `{"ready": true}`, then the answer of each line of standard input.

    The process gets at most `memory_bytes` of memory. The first command line argument is the
    largest number of seconds per line; a line that takes longer ends the process.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Nothing that a library prints may get into the replies.
    silence = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silence, number)
    alarm_seconds = float(sys.argv[1])
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in requests:
        # If the caller has died, it cannot kill this process. The default action of the alarm does.
        signal.setitimer(signal.ITIMER_REAL, alarm_seconds)
        reply = answer(line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies, flush=True)
