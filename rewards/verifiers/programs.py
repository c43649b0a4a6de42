"""Programs against a problem's tests: the program in one sandbox, the tests in another.

The two speak through pipes in plain values (`rewards.sandbox.literals`). A program never sees what
is expected of it, and what it returns is compared where none of its code runs; so neither a patched
`__eq__`, nor `sys.exit(0)`, nor printing "all passed" is worth anything. Rules:

- What can change, a list or a dict, is shared: a change that the program makes to it is there for
  the tests, and a change of theirs for the program (`rewards.sandbox.objects`).
- Tests that compare what a program returns with the arguments that it was given
  (`assert f(x) == sorted(x)`) must pass with copies of the arguments too, if it changed these.
- Otherwise tests are judged as in one process: a test that passes there, whatever the program did
  to its arguments, passes here.
- What is no plain value, a generator or an object, stays with the program: tests may ask it for
  items, attributes and calls of its methods, but it is equal to no plain value, and two of them
  are not compared (unverifiable). An object of a class that the tests name, made by a call of
  theirs, is judged by what the class's own operators and comparisons say.
- A value of a subclass of a built-in type counts as one of that type.
- Functions and iterators of the tests' reach the program, which can only call them; an assertion
  in them fails the test whatever the program makes of it.
- Once the program has defined what is asked for, it may end or read input that is not there: its
  functions are judged. What it prints is seen by tests that look at `sys.stdout`.
- Programs that read standard input and print: `rewards.verifiers.outputs`.

Correct: all tests pass. Wrong: one fails, the program raises what no test expects, ends, or has not
done at the deadline (counted apart: `rewards.verifiers.tally`). Unverifiable: the solution holds no
program, or one that does not compile; or it returns more than is passed on (16 MB, tuples nested
100 deep); or the tests are broken, or cannot be judged so (`data.tasks.code_tests`)."""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from data.tasks.code import CodeTests
from data.tasks.code_tests import TestPlan, plan_tests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.isolation import IsolationUnavailable, Limits, Process, start, why_not_isolated
from rewards.verifiers.outputs import run_cases
from rewards.verifiers.solutions import ended, readings
from rewards.verifiers.tally import TALLY

MAX_PROGRAM_CHARACTERS = 200_000
END_SECONDS = 1.0  # for a program to end by itself once nobody asks it any more
CPU_GRAIN = 0.05  # seconds by which the kernel's accounts of one process may differ
# Of the seconds it may compute, from which on a program that ended was ended for them: on a busy
# machine the kernel's limit, which counts by ticks, comes before its own account says so.
NEAR = 0.7
MAX_VERDICT_BYTES = 1 << 16
OUTCOMES = {
    "passed": Outcome.CORRECT,
    "changed": Outcome.CORRECT,
    "failed": Outcome.WRONG,
    "unreadable": Outcome.UNVERIFIABLE,
    "unjudged": Outcome.UNVERIFIABLE,
    "broken": Outcome.UNVERIFIABLE,
}
BY_CHANGES = (
    "what it returns is right only by arguments that it changed itself, not by those it was given"
)


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
                f"programs that a model wrote are not run without isolation: {reason} "
                "(make doctor checks this machine)"
            )

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """Raises ValueError when the problem's answer holds no tests."""
        try:
            tests = CodeTests.from_answer(problem.answer)
        except ValueError as error:
            raise ValueError(f"problem {problem.id}: answer {error}") from error
        try:
            plan = None if tests.cases else _plan(tests)
        except ValueError as error:
            reason = f"cannot be judged: {error}"
            return TALLY.count("code", Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason))
        if not solution.strip() or len(solution) > MAX_PROGRAM_CHARACTERS:
            reason = "holds no program, or too long a one"
            return TALLY.count("code", Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason))
        said = self._judge(readings(solution, tests.prefix, tests.names), tests, plan)
        if said is None:
            reason = (
                f"is not done after {self.limits.seconds:g} s of computing, "
                f"or {self.limits.deadline:g} s in all"
            )
            verdict = Verdict(outcome=Outcome.WRONG, reason=reason)
            return TALLY.count("code", verdict, timed_out=True)
        outcome, reason = said
        return TALLY.count("code", Verdict(outcome=OUTCOMES[outcome], reason=reason))

    def _judge(
        self, program: list[dict[str, Any]], tests: CodeTests, plan: TestPlan | None
    ) -> tuple[str, str] | None:
        isolated = self.isolation == "bubblewrap"
        if plan is None:
            return run_cases(program, tests.cases, tests.compare, self.limits, isolated=isolated)
        said = _run(program, tests, plan, self.limits, isolated=isolated, by_value=False)
        if said is not None and said[0] == "changed" and plan.by_value is not None:
            said = _run(program, tests, plan, self.limits, isolated=isolated, by_value=True)
            if said is not None and said[0] == "failed":
                return "failed", BY_CHANGES
        return said


@lru_cache(maxsize=1024)
def _plan(tests: CodeTests) -> TestPlan:
    return plan_tests(tests.tests, tests.setup, tests.names, tests.check)


def _run(
    program: Sequence[dict[str, Any]],
    tests: CodeTests,
    plan: TestPlan,
    limits: Limits,
    *,
    isolated: bool,
    by_value: bool,
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

    to_run: dict[str, Any] = {"readings": program, "names": tests.names, "prints": plan.prints}
    to_test = _to_test(tests, plan, by_value=by_value)
    try:
        channel = [asks[0], answers[1]]
        to_run["channel"] = channel
        running.append(start("run_program", to_run, limits, isolated=isolated, keep_open=channel))
        close(*channel)
        channel = [answers[0], asks[1]]
        to_test["channel"] = channel
        running.append(
            start(
                "run_tests",
                to_test,
                tests_limits,
                isolated=isolated,
                keep_open=channel,
                output=verdict[1],
            )
        )
        close(*channel, verdict[1])
        said = _read_verdict(verdict[0], deadline)
        if said is not None and said[0] == "failed":
            # Killed before its parent has waited for it, a program that the kernel ended for
            # having computed too long would seem to have computed nothing.
            running[0].await_end(END_SECONDS)
    finally:
        computed = [process.kill() for process in running]
        close(*list(handles))
    if said is None or said[0] != "failed":
        return said
    most = math.ceil(limits.seconds)
    ended_by_it = "the program ends" in said[1] and computed[0] >= NEAR * most
    return None if ended_by_it or computed[0] >= most - CPU_GRAIN else said


def _to_test(tests: CodeTests, plan: TestPlan, *, by_value: bool) -> dict[str, Any]:
    """What `rewards.sandbox.run_tests` takes, but the channel."""
    return {
        "setup": ended(tests.prefix) + tests.setup,
        "tests": plan.tests if not by_value or plan.by_value is None else plan.by_value,
        "expected": plan.expected,
        "classes": plan.classes if tests.classes is None else tests.classes,
        "check": tests.check,
        "names": tests.names,
        "by_value": by_value,
    }


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
