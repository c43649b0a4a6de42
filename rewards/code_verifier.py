"""Programs against a problem's tests: the program in one sandbox, the tests in another.

The two speak through pipes in plain values (`rewards.sandbox.literals`). A program never sees what
is expected of it, and what it returns is compared where none of its code runs; so neither a patched
`__eq__`, nor `sys.exit(0)`, nor printing "all passed" is worth anything.

Correct: all tests pass. Wrong: one fails, the program raises, ends, returns what is no plain value,
or is not done at the deadline (counted apart: `rewards.tally`). Unverifiable: the solution holds no
program, or one that does not compile; or the tests are broken.
"""

from __future__ import annotations

import json
import os
import re
import select
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from data.tasks.code import CodeTests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.isolation import IsolationUnavailable, Limits, start, why_not_isolated
from rewards.tally import TALLY

FENCE = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```", re.M | re.S | re.I)
# Where a base model's completion of a function goes on to something else (2107.03374, section 3).
STOPS = re.compile(r"\n(?:class|def|#|if|print|@|```)")
MAX_PROGRAM_CHARACTERS = 200_000
MAX_VERDICT_BYTES = 1 << 16
OUTCOMES = {
    "passed": Outcome.CORRECT,
    "failed": Outcome.WRONG,
    "unreadable": Outcome.UNVERIFIABLE,
    "broken": Outcome.UNVERIFIABLE,
}


@dataclass(frozen=True, kw_only=True)
class CodeVerifier:
    """Implements `rewards.base.Verifier`. Any thread may call; a call costs two small processes.

    Raises IsolationUnavailable where this machine cannot isolate programs, unless `isolation` is
    "none": then they run as this user, with resource limits only, and can do whatever it can.
    """

    limits: Limits = field(default_factory=Limits)
    isolation: Literal["bubblewrap", "none"] = "bubblewrap"

    def __post_init__(self) -> None:
        if self.isolation not in ("bubblewrap", "none"):
            raise ValueError(f"isolation is {self.isolation!r}; allowed: bubblewrap, none")
        reason = why_not_isolated() if self.isolation == "bubblewrap" else None
        if reason is not None:
            raise IsolationUnavailable(
                f"programs that a model wrote are not run without isolation: {reason}"
            )

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """Raises ValueError when the problem's answer holds no tests."""
        try:
            tests = CodeTests.from_answer(problem.answer)
        except ValueError as error:
            raise ValueError(f"problem {problem.id}: answer {error}") from error
        program = program_of(solution, tests)
        if not program.strip() or len(program) > MAX_PROGRAM_CHARACTERS:
            reason = "holds no program, or too long a one"
            return TALLY.count("code", Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason))
        said = _run(program, tests, self.limits, isolated=self.isolation == "bubblewrap")
        if said is None:
            reason = f"is not done after {self.limits.seconds:g} s"
            verdict = Verdict(outcome=Outcome.WRONG, reason=reason)
            return TALLY.count("code", verdict, timed_out=True)
        outcome, reason = said
        return TALLY.count("code", Verdict(outcome=OUTCOMES[outcome], reason=reason))


def program_of(solution: str, tests: CodeTests) -> str:
    """The program in a solution: its last fenced block that defines the function asked for, else
    its last fenced block, else all of it as a completion of `prefix`, cut where it goes on to
    something else. `prefix` comes first in every case: it holds the imports and helpers."""
    # A lone surrogate is no text that a file could hold.
    solution = solution.encode("utf-8", "replace").decode()
    blocks: list[str] = FENCE.findall(solution)
    defines = re.compile(rf"^(?:async )?def {re.escape(tests.names[0])}\b", re.M)
    whole = [block for block in blocks if defines.search(block)]
    prefix = (
        tests.prefix if tests.prefix.endswith("\n") or not tests.prefix else tests.prefix + "\n"
    )
    if whole:
        return prefix + ("    pass\n" if prefix else "") + whole[-1]
    if blocks:
        return prefix + blocks[-1]
    if not tests.prefix or defines.search(solution):
        return solution if not tests.prefix else f"{prefix}    pass\n{solution}"
    stop = STOPS.search(solution)
    return prefix + (solution[: stop.start()] if stop else solution)


def _run(
    program: str, tests: CodeTests, limits: Limits, *, isolated: bool
) -> tuple[str, str] | None:
    """The judge's (outcome, reason); None when there is none at the deadline."""
    deadline = time.monotonic() + limits.seconds
    asks, answers, verdict = os.pipe(), os.pipe(), os.pipe()
    running: list[Any] = []
    handles = {*asks, *answers, *verdict}

    def close(*numbers: int) -> None:
        for number in numbers:
            if number in handles:
                handles.remove(number)
                os.close(number)

    try:
        running.append(
            start(
                "runner",
                {"program": program, "names": tests.names, "channel": [asks[0], answers[1]]},
                limits,
                isolated=isolated,
                keep_open=[asks[0], answers[1]],
            )
        )
        close(asks[0], answers[1])
        running.append(
            start(
                "judge",
                {
                    "setup": (tests.prefix + "\n    pass\n" if tests.prefix else "") + tests.setup,
                    "tests": tests.tests,
                    "check": tests.check,
                    "names": tests.names,
                    "channel": [answers[0], asks[1]],
                },
                limits,
                isolated=isolated,
                keep_open=[answers[0], asks[1]],
                output=verdict[1],
            )
        )
        close(answers[0], asks[1], verdict[1])
        return _read_verdict(verdict[0], deadline)
    finally:
        for process in running:
            process.kill()
        close(*list(handles))


def _read_verdict(handle: int, deadline: float) -> tuple[str, str] | None:
    received = bytearray()
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        chunk = os.read(handle, 1 << 12)
        received += chunk
        if not chunk or len(received) > MAX_VERDICT_BYTES:
            return "broken", "the process that runs the tests ended without a verdict"
    outcome, reason = json.loads(received)
    return (outcome, reason) if outcome in OUTCOMES else ("broken", "no verdict")
