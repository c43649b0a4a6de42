"""Programs against a problem's tests: the program in one sandbox, the tests in another.

The two speak through pipes in plain values (`rewards.sandbox.literals`). A program never sees what
is expected of it, and what it returns is compared where none of its code runs; so neither a patched
`__eq__`, nor `sys.exit(0)`, nor printing "all passed" is worth anything. What is no plain value, a
generator or an object, stays with the program: tests may ask it for items, attributes and calls of
its methods, but it is equal to itself alone.

Correct: all tests pass. Wrong: one fails, the program raises what no test expects, ends, or has not
done at the deadline (counted apart: `rewards.verifiers.tally`). Unverifiable: the solution holds no
program, or one that does not compile; or the tests are broken, or cannot be judged so
(`data.tasks.code_tests`)."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import select
import textwrap
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from data.tasks.code import CodeTests
from data.tasks.code_tests import TestPlan, plan_tests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.isolation import IsolationUnavailable, Limits, Process, start, why_not_isolated
from rewards.verifiers.tally import TALLY

# A line that opens or ends a block, after a list's mark or not: what stands before the fence, the
# fence, what is said of the block.
FENCE = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(`{3,}|~{3,})([^`]*)")
LANGUAGE = re.compile(r"[\s{.]*(\w*)")
LANGUAGES = ("", "python", "python3", "py", "py3")
# Where a base model's completion of a function goes on to something else (2107.03374, section 3).
STOPS = re.compile(r"\n(?:class|def|#|if|print|@|```)")
MAX_PROGRAM_CHARACTERS = 200_000
END_SECONDS = 1.0  # for a program to end by itself once nobody asks it any more
CPU_GRAIN = 0.05  # seconds by which the kernel's accounts of one process may differ
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
        try:
            plan = _plan(tests)
        except ValueError as error:
            reason = f"cannot be judged: {error}"
            return TALLY.count("code", Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason))
        program = program_of(solution, tests)
        if not program.strip() or len(program) > MAX_PROGRAM_CHARACTERS:
            reason = "holds no program, or too long a one"
            return TALLY.count("code", Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason))
        said = _run(program, tests, plan, self.limits, isolated=self.isolation == "bubblewrap")
        if said is None:
            reason = (
                f"is not done after {self.limits.seconds:g} s of computing, "
                f"or {self.limits.deadline:g} s in all"
            )
            verdict = Verdict(outcome=Outcome.WRONG, reason=reason)
            return TALLY.count("code", verdict, timed_out=True)
        outcome, reason = said
        return TALLY.count("code", Verdict(outcome=OUTCOMES[outcome], reason=reason))


@lru_cache(maxsize=1024)
def _plan(tests: CodeTests) -> TestPlan:
    return plan_tests(tests.tests, tests.setup, tests.names, tests.check)


def program_of(solution: str, tests: CodeTests) -> str:
    """The program in a solution: its last fenced block of Python that defines the function asked
    for, else its last such block, else all of it as a completion of `prefix`, cut where it goes on
    to something else. `prefix` comes first in every case: it holds the imports and helpers."""
    # A lone surrogate is no text that a file could hold.
    solution = solution.encode("utf-8", "replace").decode()
    defines = re.compile(rf"^(?:(?:async )?def|class) {re.escape(tests.names[0])}\b", re.M)
    blocks = [
        block if defines.search(block) or not defines.search(flush) else flush
        for block in python_blocks(solution)
        for flush in [textwrap.dedent(block)]
    ]
    whole = [block for block in blocks if defines.search(block)]
    prefix = _with_line_end(tests.prefix)
    if whole:
        return ended(prefix) + whole[-1]
    if blocks:
        return prefix + blocks[-1]
    if not tests.prefix or defines.search(solution):
        return ended(prefix) + solution
    stop = STOPS.search(solution)
    return prefix + (solution[: stop.start()] if stop else solution)


def python_blocks(text: str) -> list[str]:
    """What stands in fences that say Python, or nothing, each as far left as its fence is. A fence
    that names a language begins a block, even inside one that was not ended."""
    blocks: list[str] = []
    block: list[str] = []
    fence, indent, language = "", 0, ""
    for line in text.split("\n"):
        found = FENCE.fullmatch(line)
        ends = bool(fence) and line.lstrip(" \t").startswith(fence)
        begins = found is not None and (not fence or (ends and found[3][:1].isalpha()))
        if ends and language in LANGUAGES:
            blocks.append("".join(block))
        if found is not None and begins:
            block, fence, indent = [], found[2], len(found[1])
            named = LANGUAGE.match(found[3])
            language = named[1].lower() if named else ""
        elif ends:
            fence = ""
        elif fence:
            margin = len(line) - len(line.lstrip(" \t"))
            block.append(line[min(margin, indent) :] + "\n")
    return blocks


def _with_line_end(code: str) -> str:
    return code if code.endswith("\n") or not code else code + "\n"


@lru_cache(maxsize=1024)
def ended(prefix: str) -> str:
    """The head of a function with a statement for its body, indented as the head's own last lines
    are; '' for ''."""
    if not prefix:
        return ""
    lines = [line for line in reversed(prefix.splitlines()) if line.strip()]
    indents = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines]
    for indent in dict.fromkeys([*indents[:1], "    ", *indents]):
        program = f"{_with_line_end(prefix)}{indent}pass\n"
        try:
            compile(program, "<prefix>", "exec", flags=ast.PyCF_ONLY_AST)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return program
    return f"{_with_line_end(prefix)}    pass\n"


def _run(
    program: str, tests: CodeTests, plan: TestPlan, limits: Limits, *, isolated: bool
) -> tuple[str, str] | None:
    """The judge's (outcome, reason); None when there is none at the deadline, or the program fails
    for having computed as long as it may."""
    deadline = time.monotonic() + limits.deadline
    # The tests may wait for as long as the program may, and compute all the time.
    tests_limits = replace(limits, seconds=limits.deadline + 2)
    asks, answers, verdict = os.pipe(), os.pipe(), os.pipe()
    running: list[Process] = []
    handles = {*asks, *answers, *verdict}

    def close(*numbers: int) -> None:
        for number in numbers:
            if number in handles:
                handles.remove(number)
                os.close(number)

    try:
        running.append(
            start(
                "run_program",
                {"program": program, "names": tests.names, "channel": [asks[0], answers[1]]},
                limits,
                isolated=isolated,
                keep_open=[asks[0], answers[1]],
            )
        )
        close(asks[0], answers[1])
        running.append(
            start(
                "run_tests",
                {
                    "setup": ended(tests.prefix) + tests.setup,
                    "tests": plan.tests,
                    "expected": plan.expected,
                    "check": tests.check,
                    "names": tests.names,
                    "channel": [answers[0], asks[1]],
                },
                tests_limits,
                isolated=isolated,
                keep_open=[answers[0], asks[1]],
                output=verdict[1],
            )
        )
        close(answers[0], asks[1], verdict[1])
        said = _read_verdict(verdict[0], deadline)
        if said is not None and said[0] == "failed":
            # Killed before its parent has waited for it, a program that the kernel ended for
            # having computed too long would seem to have computed nothing.
            running[0].await_end(END_SECONDS)
    finally:
        computed = [process.kill() for process in running]
        close(*list(handles))
    out_of_time = computed[0] >= math.ceil(limits.seconds) - CPU_GRAIN
    return None if said is not None and said[0] == "failed" and out_of_time else said


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
