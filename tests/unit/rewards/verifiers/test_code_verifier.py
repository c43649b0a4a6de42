"""Programs out of solutions, plain values between processes, and verdicts of the code verifier."""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sources import Row
from data.tasks.code import CodeConfig, CodeTests, mbpp_row
from data.types import Outcome, Problem
from rewards.sandbox import users
from rewards.sandbox.isolation import IsolationUnavailable, Limits, why_not_isolated
from rewards.sandbox.literals import NotPlain
from rewards.sandbox.objects import dumps, loads
from rewards.verifiers import programs as code_verifier
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.programs import CodeVerifier
from rewards.verifiers.solutions import ended, readings
from rewards.verifiers.tally import TALLY

PREFIX = 'def square(x):\n    """The square of x."""\n'
TESTS = CodeTests(
    tests="def check(f):\n    assert f(3) == 9\n    assert f(x=4) == 16\n",
    names=("square",),
    prefix=PREFIX,
    check="check",
)
ASSERTS = CodeTests(
    tests="assert double(3) == 6\nassert triple(3) == 9", names=("double", "triple")
)


def problem(tests: CodeTests = TESTS) -> Problem:
    return Problem(id="p", prompt="", answer=tests.to_answer())


@pytest.fixture(scope="module")
def verifier() -> CodeVerifier:
    reason = why_not_isolated()
    if reason is not None:
        if os.environ.get("THINKTREE_REQUIRE_SANDBOX") == "1":
            pytest.fail(f"THINKTREE_REQUIRE_SANDBOX=1, but {reason}")
        pytest.skip(reason)
    return CodeVerifier(limits=Limits(seconds=20))


@pytest.mark.parametrize(
    ("solution", "outcome", "reason"),
    [
        ("    return x * x", Outcome.CORRECT, ""),
        ("    return x * x\n\nprint(square(3))\n", Outcome.CORRECT, ""),  # cut off there
        ("```python\ndef square(x):\n    return x ** 2\n```", Outcome.CORRECT, ""),
        ("First:\n```\nx = 1\n```\nSo:\n```py\ndef square(x): return x*x\n```\nDone.",
         Outcome.CORRECT, ""),
        ("    return x + x", Outcome.WRONG, "a test fails"),
        ("    return str(x * x)", Outcome.WRONG, "a test fails"),
        ("    raise ValueError", Outcome.WRONG, "raises ValueError"),
        ("    return object()", Outcome.WRONG, "a test fails"),
        ("    return (", Outcome.UNVERIFIABLE, "SyntaxError"),
        ("```python\nprint(1\n```", Outcome.UNVERIFIABLE, "SyntaxError"),
        ("\x00", Outcome.UNVERIFIABLE, "raises"),
    ],
)  # fmt: skip
def test_verdicts(verifier: CodeVerifier, solution: str, outcome: Outcome, reason: str) -> None:
    verdict = verifier.verify(problem(), solution)
    assert verdict.outcome is outcome, verdict.reason
    assert reason in verdict.reason


def test_asserts_that_call_by_name(verifier: CodeVerifier) -> None:
    right = "def double(x): return 2 * x\ndef triple(x): return 3 * x\n"
    assert verifier.verify(problem(ASSERTS), right).correct
    verdict = verifier.verify(problem(ASSERTS), "def double(x): return 2 * x\n")
    assert verdict.outcome is Outcome.WRONG
    assert "does not define triple" in verdict.reason


def test_broken_tests_are_nobodys_fault(verifier: CodeVerifier) -> None:
    for tests in ("def check(f:", "x = 1", "def check(f):\n    pass"):
        broken = CodeTests(tests=tests, names=("square",), prefix=PREFIX, check="check")
        assert verifier.verify(problem(broken), "    return 9").outcome is Outcome.UNVERIFIABLE


def test_mbpps_imports_and_names_that_the_tests_lack(verifier: CodeVerifier) -> None:
    columns = {
        "prompt": "Double.", "code": "def double(x): return 2 * x",
        "test_list": ["assert math.isclose(double(2), 4)"], "test_imports": ["import math"],
    }  # fmt: skip
    config = CodeConfig(row_format="mbpp")
    made = mbpp_row(Row(location="", columns=columns), "b", config)
    assert verifier.verify(made.problem, made.solution).correct
    made = mbpp_row(Row(location="", columns={**columns, "test_imports": []}), "b", config)
    verdict = verifier.verify(made.problem, made.solution)
    assert verdict.outcome is Outcome.UNVERIFIABLE
    assert "the tests raise" in verdict.reason
    unknown = CodeTests(tests="import nothing_of_that_name; double(1)", names=("double",))
    verdict = verifier.verify(problem(unknown), made.solution)
    assert verdict.outcome is Outcome.UNVERIFIABLE
    assert "cannot be judged: the tests import nothing_of_that_name" in verdict.reason


@pytest.mark.parametrize(
    "tests", ["for last in double([]): pass\nassert last == 1", "assert eval(double('no_name'))"]
)
def test_a_name_that_the_program_left_out_is_its_fault(verifier: CodeVerifier, tests: str) -> None:
    spec = CodeTests(tests=tests, names=("double",))
    verdict = verifier.verify(problem(spec), "def double(x): return x")
    assert verdict.outcome is Outcome.WRONG
    assert "raises NameError" in verdict.reason


def test_heads_of_functions_with_another_indent(verifier: CodeVerifier) -> None:
    for indent in ("  ", "\t", "      "):
        prefix = f'def square(x):\n{indent}"""The\n{indent}{indent}square."""\n'
        spec = CodeTests(tests=TESTS.tests, names=("square",), prefix=prefix, check="check")
        for solution in (f"{indent}return x * x", "```python\ndef square(x): return x*x\n```"):
            verdict = verifier.verify(problem(spec), solution)
            assert verdict.correct, (indent, verdict)


@pytest.mark.parametrize(
    ("prefix", "body"),
    [
        ("", ""),
        ("def f():", "    pass\n"),
        ("def f():\n  'x'\n", "  pass\n"),
        ("import x\n\ndef f():\n  '''x\n  y\n    '''\n\n", "  pass\n"),
        ("def f(:\n", "    pass\n"),
    ],
)
def test_the_end_of_a_head(prefix: str, body: str) -> None:
    assert ended(prefix) == (prefix + "\n" * (prefix[-1:] not in ("", "\n"))) + body


def program_of(solution: str, tests: CodeTests) -> str:
    """The likeliest reading."""
    first = readings(solution, tests.prefix, tests.names)[0]
    return first["before"] + first["program"]


FENCED = "```python\ndef double(x):\n    return 1\n```"


@pytest.mark.parametrize(
    "text",
    [
        FENCED,
        f"Run:\n```bash\npip install x\n```\nNow:\n{FENCED}\nIt prints:\n```text\n1\n```\n",
        f"```bash\nnever ended\n{FENCED}",
        f"```c++ title='a'\nint x;\n```\n{FENCED}",
        f"~~~ sh\n```\n~~~\n{FENCED}",
        FENCED.replace("```", "````"),
        FENCED.replace("```python", "``` {.python .numberLines}"),
        "1. So:\n" + textwrap.indent(FENCED, "   "),
        "- " + textwrap.indent(FENCED, "  ").lstrip(),
        "1. So:\n" + textwrap.indent(FENCED, "    ").replace("    ```python", "```python"),
    ],
)
def test_the_block_of_python_is_the_program(text: str) -> None:
    assert program_of(text, ASSERTS) == "def double(x):\n    return 1\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "body"),
    [
        (Limits(seconds=1, wall_seconds=60), "    while True: pass"),
        (Limits(seconds=1, wall_seconds=60), "    return 10**10**9"),  # in one call
        (
            Limits(seconds=1, wall_seconds=60),
            "    import signal\n    signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n    while 1: 0",
        ),
        (Limits(seconds=60, wall_seconds=1), "    import time\n    time.sleep(60)"),
    ],
)
def test_a_time_out_is_wrong_and_counted(verifier: CodeVerifier, limits: Limits, body: str) -> None:
    before = TALLY.snapshot().get("code/timed_out", 0)
    started = time.monotonic()
    verdict = CodeVerifier(limits=limits).verify(problem(), body)
    assert time.monotonic() - started < 30
    assert verdict.outcome is Outcome.WRONG
    assert f"after {limits.seconds:g} s of computing, or {limits.deadline:g} s" in verdict.reason
    assert TALLY.snapshot()["code/timed_out"] == before + 1


@pytest.mark.slow
def test_waiting_for_a_busy_machine_is_no_time_out(verifier: CodeVerifier) -> None:
    """A program that is kept waiting for longer than it may compute."""
    patient = CodeVerifier(limits=Limits(seconds=1))
    assert patient.limits.deadline == 3
    before = TALLY.snapshot().get("code/timed_out", 0)
    waits = "    import time\n    time.sleep(0.6)\n    return x * x"  # twice
    assert patient.verify(problem(), waits).correct
    assert patient.verify(problem(), waits.replace("x * x", "x")).outcome is Outcome.WRONG
    assert TALLY.snapshot().get("code/timed_out", 0) == before


def test_tests_do_not_reach_the_program(verifier: CodeVerifier) -> None:
    """The program looks everywhere it can for what is expected of it."""
    spy = (
        "    import gc, os, sys\n"
        "    text = open('/proc/self/cmdline').read() + str(dict(os.environ))\n"
        "    os.lseek(0, 0, 0) if False else None\n"
        "    text += ''.join(o for o in gc.get_objects() if isinstance(o, str))\n"
        "    text += repr(sys.modules['rewards.sandbox.run_program'].__dict__)\n"
        "    text += ''.join(repr(f.f_locals) for f in sys._current_frames().values())\n"
        "    frame = sys._getframe()\n"
        "    while frame: text += repr(frame.f_locals); frame = frame.f_back\n"
        "    return 9 if 'assert ' + 'f(3)' in text else 0\n"
    )
    assert verifier.verify(problem(), spy).outcome is Outcome.WRONG


def test_without_isolation_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_verifier, "why_not_isolated", lambda: "bubblewrap is not installed")
    with pytest.raises(IsolationUnavailable, match="not run without isolation: bubblewrap is not"):
        CodeVerifier()
    with pytest.raises(IsolationUnavailable):
        VERIFIERS["code"]()
    knowingly = CodeVerifier(isolation="none", limits=Limits(seconds=20))
    assert knowingly.verify(problem(), "    return x * x").correct
    assert not knowingly.verify(problem(), "    return x").correct
    with pytest.raises(ValueError, match="isolation is 'maybe'"):
        CodeVerifier(isolation="maybe")  # pyright: ignore


def test_a_machine_without_bubblewrap_says_what_to_install(tmp_path: Path) -> None:
    code = "from rewards.verifiers.by_name import VERIFIERS; VERIFIERS['code']()"
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "apt-get install bubblewrap" in done.stderr


@pytest.mark.parametrize(
    ("solution", "tests", "program"),
    [
        ("    return 1", TESTS, PREFIX + "    return 1"),
        ("    return 1\n\ndef main():\n    pass", TESTS, PREFIX + "    return 1\n"),
        ("    return 1\n# that is it", TESTS, PREFIX + "    return 1"),
        ("def square(x): return 1", TESTS, PREFIX + "    pass\ndef square(x): return 1"),
        (
            "```\ndef square(x): return 1\n```",
            TESTS,
            PREFIX + "    pass\ndef square(x): return 1\n",
        ),
        ("```\n    return 1\n```", TESTS, PREFIX + "    return 1\n"),
        ("x = 1", ASSERTS, "x = 1"),
    ],
)
def test_which_text_is_the_program(solution: str, tests: CodeTests, program: str) -> None:
    assert program_of(solution, tests) == program


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("x", "answer Expecting value"),
        ("[]", "is not a JSON object"),
        ('{"tests": "x"}', "names is None"),
        ('{"tests": "x", "names": ["a b"]}', "names holds 'a b'"),
        ('{"tests": "", "names": ["f"]}', "tests is empty"),
        ('{"tests": 3, "names": ["f"]}', "tests is 3"),
        ('{"tests": "x", "names": ["f"], "check": 3}', "check is 3"),
    ],
)
def test_a_problem_without_tests_is_an_error(answer: str, reason: str) -> None:
    verifier = CodeVerifier(isolation="none")
    with pytest.raises(ValueError, match=f"problem p: .*{reason}"):
        verifier.verify(Problem(id="p", prompt="", answer=answer), "x")


def test_bad_limits() -> None:
    for name in ("seconds", "memory_bytes", "processes", "open_files", "scratch_bytes"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            Limits(**{name: 0})
    with pytest.raises(ValueError, match="wall_seconds is 0"):
        Limits(wall_seconds=0)
    with pytest.raises(ValueError, match="scratch_files is 1"):
        Limits(scratch_files=1)


def test_uids_are_nobodys_and_each_runs_its_own() -> None:
    if os.getuid() != 0:
        pytest.skip("for root only")
    with users.unused_uid() as first, users.unused_uid() as second:
        assert first is not None and second is not None
        assert first != second
        assert min(first, second) >= 1000
        running = {entry.stat().st_uid for entry in users.processes()}
        assert not {first, second} & running


VALUES = [
    None, True, False, 0, -(10**400), 1.5, -0.0, math.inf, "", "\u00e9\ud800\n", b"\x00\xff",
    [1, [2, "3"]], (1,), {1, 2}, frozenset({3}), {"a": [1], (1, 2): None}, 1 + 2j,
    bytearray(b"a"), range(1, 9, 2), deque([1, 2]), Counter("aab"), OrderedDict(a=1, b=2),
    Decimal("1.50"), Fraction(-2, 3), datetime.date(2024, 2, 29), datetime.time(1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.UTC), datetime.timedelta(-1, 5, 7),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_plain_values_come_back(value: object) -> None:
    back = loads(dumps(value))
    assert repr(back) == repr(value)
    assert type(back) is type(value)


class Sneaky(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [Sneaky(1), [Sneaky(1)], {Sneaky(1): 1}, object(), len, iter([]), defaultdict(int)]
)
def test_other_values_do_not_pass(value: object) -> None:
    with pytest.raises(NotPlain):
        dumps(value)


def test_deep_and_large_values_do_not_pass() -> None:
    deep: Any = ()
    for _ in range(200):
        deep = (deep,)
    with pytest.raises(NotPlain, match="nested more than 100"):
        dumps(deep)
    lists: list[Any] = []
    for _ in range(10_000):
        lists = [lists]
    back, depth = loads(dumps(lists)), 0
    while back:
        back, depth = back[0], depth + 1
    assert depth == 10_000
    for large in ("x" * 20_000_000, [0] * 20_000_000):
        with pytest.raises(NotPlain, match="at most"):
            dumps(large)
    with pytest.raises(NotPlain):
        loads("[" * 100_000)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary()
    | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4)
    | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.slow
@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_any_plain_value_comes_back(value: object) -> None:
    assert loads(dumps(value)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.sampled_from(["int", "list", "dict", "float", "str", "set", "none", "bytes", "complex",
                       "handle", "Counter", "builtins.range", "fractions.Fraction",
                       "decimal.Decimal", "datetime.date", "datetime.timedelta"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
)  # fmt: skip


def coded_values(numbers: int) -> st.SearchStrategy[Any]:
    """Values as they are coded, in the one way that `dumps` writes them."""
    return st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text()
        | st.binary().map(lambda value: ["bytes", value.hex()])
        | st.integers(0, 2 * numbers).map(lambda value: ["#", value]),
        lambda inner: st.lists(inner, max_size=4).map(lambda items: ["tuple", items]),
        max_leaves=6,
    )  # fmt: skip


CODED = st.tuples(
    coded_values(3),
    st.dictionaries(
        st.sampled_from(["0", "2", "4"]),
        st.tuples(st.sampled_from(["list", "set", "dict"]), st.lists(coded_values(3), max_size=4)),
    ),
    st.just([]),
)


@pytest.mark.slow
@given(JSON | CODED | st.binary().map(lambda b: b.decode("latin1")))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_plain_value_or_refused(content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    try:
        value = loads(text)
    except NotPlain:
        return
    written = dumps(value)
    assert dumps(loads(written)) == written


@pytest.mark.parametrize(
    "coded",
    [
        ["int", 3], ["int", "g"], ["int"], ["int", "3", "4"], ["bool", 1], ["none", 1], ["x"],
        ["float", "x"], ["tuple", {}], ["tuple", [["x"]]], ["complex", "0x1p+0"],
        ["at", "value", 1],
        ["builtins.eval", ["1"]], ["fractions.Fraction", [1, 0]], {"int": "1"}, [], ["#", 5],
        ["#", "list"], ["frozenset", [["#", 0]]], ["named", "P", ["a b"], [1]],
        ["named", "P", ["a"], [1, 2]], ["type", "eval"], ["dict_keys", [1]],
    ],
)  # fmt: skip
def test_text_that_is_nearly_a_plain_value_is_refused(coded: object) -> None:
    with pytest.raises(NotPlain):
        loads(json.dumps([coded, {"0": ["list", []]}, []]))


@pytest.mark.parametrize(
    "message",
    [
        3, "", [1], [1, {}], [1, [], []], [1, {"x": ["list", []]}, []],
        [1, {"1": ["list", []]}, []], [1, {"0": []}, []],
        [1, {"0": ["lists", []]}, []], [1, {"0": ["list", [["#", 2]]]}, []], [1, {}, [0]],
        [1, {"0": ["dict", [1]]}, []], [1, {"0": ["dict", [[["#", 0], 1]]]}, []],
        [1, {"0": ["bytearray", "x"]}, []], [1, {"0": ["array", "?", ""]}, []],
    ],
)  # fmt: skip
def test_messages_that_are_nearly_one_are_refused(message: object) -> None:
    with pytest.raises(NotPlain):
        loads(json.dumps(message))


@given(st.text(max_size=80), st.sampled_from([TESTS, ASSERTS]))
@settings(max_examples=200, deadline=None)
def test_any_solution_is_some_program(solution: str, tests: CodeTests) -> None:
    """Nothing that the solution does not hold, apart from indents and the ends of lines."""
    found = readings(solution, tests.prefix, tests.names)
    assert len(found) <= 60 and (found or not solution.strip())
    text = "".join(held(solution).split())
    for reading in found:
        program = reading["program"].removeprefix(tests.prefix)
        assert "".join(program.split()) in text
        assert reading["before"] in ("", ended(tests.prefix))


def held(solution: str) -> str:
    """The solution as a file can hold it: without lone surrogates, or a mark of byte order."""
    return solution.encode("utf-8", "replace").decode().replace("\ufeff", "")
