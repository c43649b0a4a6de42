"""Programs that read standard input and print, against inputs and what is to be printed for them.

A run for each input, in a process of its own; the limits are those of one run. The first input
whose output differs ends it. What is expected never reaches the sandbox: outputs are compared here,
as text. A program may end by `sys.exit` with any code; one that raises, or is killed, is wrong.

How outputs are compared (`data.tasks.code.CodeTests.compare`):

- `tokens` (APPS): as many words, split at white space, each the same, or the same number: exactly,
  or within 1e-5, or 1e-9 of it, where the expected one has a point or an exponent. APPS's own
  script also takes words in another order and lines as sets; here they are wrong.
- `tokens_any_case` (CodeContests): so, and `YES` is `Yes`. DeepMind's checker allows 1e-5 for
  whole numbers too, so that 10**17 and 10**17 + 1 are the same; here they are not.
- `lines` (LiveCodeBench): as many lines, without white space around each and around all, each the
  same text, or the same numbers exactly.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import time
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from rewards.sandbox.channel import MAX_LINE
from rewards.sandbox.isolation import Limits, Process, read_only_memory, start

ABSOLUTE, RELATIVE = 1e-5, 1e-9
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,6})?")
MAX_DIGITS = 10_000


def run_cases(
    program: Sequence[dict[str, Any]],
    cases: Sequence[tuple[str, str]],
    compare: str,
    limits: Limits,
    *,
    isolated: bool,
) -> tuple[str, str] | None:
    """(outcome, reason) as `rewards.sandbox.run_tests` gives them; None when it is out of time."""
    inputs = [given.encode("utf-8", "replace") for given, _ in cases]
    given = read_only_memory(b"".join(inputs))
    reports = os.pipe()
    process: Process | None = None
    try:
        process = start(
            "run_stdin",
            {"readings": program, "inputs": given, "sizes": [len(text) for text in inputs]},
            limits,
            isolated=isolated,
            keep_open=[given],
            output=reports[1],
        )
        os.close(reports[1])
        received = bytearray()
        said = _report(reports[0], received, limits.deadline)
        if said is None:
            return None
        if said[0] != "ready":
            return "unreadable", f"the program {said[2][:200]}"
        for number, (_, expected) in enumerate(cases, 1):
            said = _report(reports[0], received, limits.deadline)
            if said is None or said[0] == "out of time":
                return None
            if said[0] != "done":
                return "failed", f"the program {said[2][:200]} (input {number} of {len(cases)})"
            if not COMPARE[compare](said[1], expected):
                return "failed", f"prints something else for input {number} of {len(cases)}"
        return "passed", ""
    finally:
        os.close(given)
        if process is None:
            os.close(reports[1])
        else:
            process.kill()
        os.close(reports[0])


def _report(handle: int, received: bytearray, seconds: float) -> list[str] | None:
    """The next line; None when there is none in time."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    searched = 0
    while (end := received.find(b"\n", searched)) < 0:
        searched = len(received)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        chunk = os.read(handle, 1 << 16)
        received += chunk
        if not chunk or len(received) > MAX_LINE:
            return ["ended", "", "ends before it is done"]
    line = bytes(received[:end])
    del received[: end + 1]
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, list) or [type(part) for part in said] != [str] * 3:  # pyright: ignore
        return ["ended", "", "tampers with its output"]
    return [str(part) for part in said]  # pyright: ignore


def same_tokens(printed: str, expected: str) -> bool:
    found, wanted = printed.split(), expected.split()
    return len(found) == len(wanted) and all(map(_same_token, found, wanted))


def same_tokens_any_case(printed: str, expected: str) -> bool:
    return same_tokens(printed.lower(), expected.lower())


def same_lines(printed: str, expected: str) -> bool:
    found, wanted = printed.strip().split("\n"), expected.strip().split("\n")
    return len(found) == len(wanted) and all(
        a.strip() == b.strip() or _same_numbers(a.split(), b.split())
        for a, b in zip(found, wanted, strict=True)
    )


def _same_numbers(found: list[str], wanted: list[str]) -> bool:
    numbers = [[_number(token) for token in side] for side in (found, wanted)]
    return numbers[0] == numbers[1] and None not in numbers[0]


def _same_token(found: str, wanted: str) -> bool:
    if found == wanted:
        return True
    number, expected = _number(found), _number(wanted)
    if number is None or expected is None:
        return False
    if number == expected:
        return True
    if not set(wanted) & set(".eE"):
        return False
    a, b = float(number), float(expected)
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE) and math.isfinite(a)


def _number(token: str) -> Decimal | None:
    if len(token) > MAX_DIGITS or not NUMBER.fullmatch(token) or not token.isascii():
        return None
    try:
        return Decimal(token)
    except InvalidOperation:
        return None


COMPARE: dict[str, Callable[[str, str], bool]] = {
    "tokens": same_tokens,
    "tokens_any_case": same_tokens_any_case,
    "lines": same_lines,
}
