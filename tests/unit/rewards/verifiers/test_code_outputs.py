# ruff: noqa: E501 (one program a line)
"""Programs that read standard input and print."""

from __future__ import annotations

import pytest

from data.tasks.code import CodeTests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.isolation import Limits
from rewards.verifiers.outputs import same_lines, same_tokens, same_tokens_any_case
from rewards.verifiers.programs import CodeVerifier
from rewards.verifiers.tally import TALLY

VERIFIER = CodeVerifier(isolation="none", limits=Limits(seconds=20))
CASES = (("3\n", "9\n"), ("4\n", "16\n"))


def judged(program: str, verifier: CodeVerifier = VERIFIER) -> Verdict:
    spec = CodeTests(cases=CASES)
    return verifier.verify(Problem(id="p", prompt="", answer=spec.to_answer()), program)


@pytest.mark.parametrize(
    "program",
    [
        "n = int(input())\nprint(n * n)",
        "Here:\n```python\nimport sys\ndef main():\n    n = int(sys.stdin.readline())\n    print(n * n)\nif __name__ == '__main__':\n    main()\n```\nDone.",
        "import os\nn = int(os.read(0, 100))\nos.write(1, str(n * n).encode())\nos._exit(0)",
        "import sys\nprint(int(open(0).read()) ** 2)\nsys.exit(0)",
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(512 << 20)\ndef main(): print(int(input()) ** 2)\nthreading.Thread(target=main).start()",
        "import io, os\ngiven = io.BytesIO(os.read(0, os.fstat(0).st_size))\nprint(int(given.readline()) ** 2)",
        "import sys\ninput = sys.stdin.buffer.readline\nsys.stdout.write(str(int(input()) ** 2))",
        "import atexit\nn = int(input())\natexit.register(lambda: print(n * n))",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(int(input())).x ** 2)",
        "import pickle\nclass P:\n    def __init__(s, v): s.v = v\nprint(pickle.loads(pickle.dumps(P(int(input())))).v ** 2)",
        "import sys\nprint('to no one', file=sys.stderr)\nprint(int(input()) ** 2)",
    ],
)
def test_right_programs(program: str) -> None:
    verdict = judged(program)
    assert verdict.correct, verdict.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("n = int(input())\nprint(n * n + 1)", "prints something else for input 1 of 2"),
        ("n = int(input())\nprint(9)", "prints something else for input 2 of 2"),
        ("n = int(input())\nprint(n * n)\ninput()", "raises EOFError"),
        ("n = int(input())\nprint(n * n)\n1 / 0", "raises ZeroDivisionError"),
        (
            "import os\nn = int(input())\nprint(n * n, flush=True)\nos._exit(3)",
            "ends before it is done",
        ),
        ("import os\nos.kill(os.getpid(), 9)", "ends before it is done"),
        ("", "holds no program"),
    ],
)
def test_programs_that_do_not_pass(program: str, reason: str) -> None:
    verdict = judged(program)
    assert not verdict.correct
    assert reason in verdict.reason


def test_each_run_is_a_process_of_its_own() -> None:
    program = "import os, sys\nif os.path.exists('seen'): print(9)\nopen('seen', 'w').close() if False else None\nsys.modules['kept'] = getattr(sys.modules.get('kept'), 'n', 0)\nprint(int(input()) ** 2)"
    assert judged(program).correct


@pytest.mark.slow
def test_time_outs_are_counted() -> None:
    before = TALLY.snapshot().get("code/timed_out", 0)
    for program, limits in (
        ("while True: pass", Limits(seconds=1, wall_seconds=60)),
        ("import time\ntime.sleep(60)", Limits(seconds=60, wall_seconds=1)),
    ):
        verdict = judged(program, CodeVerifier(isolation="none", limits=limits))
        assert verdict.outcome is Outcome.WRONG
        assert "is not done" in verdict.reason
    assert TALLY.snapshot()["code/timed_out"] == before + 2


def test_no_program_is_unverifiable() -> None:
    assert judged("n = int(input(").outcome is Outcome.UNVERIFIABLE


@pytest.mark.parametrize(
    ("printed", "expected", "tokens", "any_case", "lines"),
    [
        ("9", "9\n", True, True, True),
        ("1 2\n3 \n\n", "1 2\n3", True, True, True),
        ("1\n2\n3", "1 2 3", True, True, False),
        ("1  2", "1 2", True, True, True),
        ("3.0", "3", True, True, True),
        ("3", "3.00", True, True, True),
        ("0.3333333", "0.333333", True, True, False),
        ("0.3334", "0.333333", False, False, False),
        ("2.9999999", "3", False, False, False),
        ("100000000000000001", "100000000000000000", False, False, False),
        ("1e3", "1000", True, True, True),
        ("YES", "Yes", False, True, False),
        ("", "", True, True, True),
        ("", "0", False, False, False),
        ("2 1", "1 2", False, False, False),
        ("nan", "0.5", False, False, False),
        ("inf", "1e400", False, False, False),
        ("1_000", "1000", False, False, False),
        ("\u0663", "3", False, False, False),
        ("a b", "a  b", True, True, False),
    ],
)
def test_how_outputs_are_compared(
    printed: str, expected: str, tokens: bool, any_case: bool, lines: bool
) -> None:
    assert same_tokens(printed, expected) is tokens
    assert same_tokens_any_case(printed, expected) is any_case
    assert same_lines(printed, expected) is lines
