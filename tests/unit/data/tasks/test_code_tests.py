"""What programming problems' tests ask of the program, and which ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sources import BadRow, Row, read_source
from data.tasks.code import CodeConfig, CodeTask, CodeTests, humaneval_row, mbpp_row
from data.tasks.code_tests import TestPlan, plan_tests
from data.types import Outcome, Problem, Verdict

# Rows as they are published: the full set's, the sanitized set's (other numbers and texts).
MBPP = {
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b):\r\n  return a + b ",
    "task_id": 11,
    "test_setup_code": "",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(-1, 1) == 0"],
    "challenge_test_list": ["assert add(10**30, 1) == 10**30 + 1"],
}
SANITIZED = {
    "source_file": "Benchmark Questions Verification V2.ipynb",
    "task_id": 12,
    "prompt": "Write a function to halve a number.",
    "code": "import math\nhalf = lambda x: x / 2",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(half(3), 1.5)"],
}


def plan(tests: str, *names: str, check: str | None = None) -> TestPlan:
    return plan_tests(tests, "", names or ("f",), check)


def test_plans_by_hand() -> None:
    plain = plan("assert f(1) == 2  # as it is")
    assert (plain.tests, plain.expected) == ("assert f(1) == 2  # as it is", ())
    assert (plain.by_value, plain.prints, plain.classes) == (None, False, ())
    assert plan("try:\n    f(1)\nexcept (ValueError, KeyError): pass").expected == (
        "KeyError",
        "ValueError",
    )
    assert plan("try:\n    f(1)\nexcept: pass\nelse:\n    assert False").expected == ("Exception",)
    assert plan("import unittest\nunittest.TestCase().assertRaises(ValueError, f, 1)").expected == (
        "ValueError",
    )
    assert plan("with case.assertRaises(KeyError):\n    f(1)").expected == ("KeyError",)
    assert plan("with redirect_stdout(to):\n    f(1)").prints
    assert plan("assert Stack().f(1) == 1", "Stack", "f", "find_Max").classes == ("Stack",)


@pytest.mark.parametrize(
    ("tests", "compared"),
    [
        ("x = [2, 1]\nassert f(x) == sorted(x)", True),
        ("x = [2, 1]\nr = f(x)\nassert r == sorted(x)", True),
        ("x = [2, 1]\ny = x\nassert all(v in f(x) for v in y)", True),
        ("for x in ([2, 1],):\n    assert len(f(x)) == len(x)", True),
        ("x = [2, 1]\nassert same(f(x), x)", True),
        ("x = [2, 1]\nassert f(x=x) == x[::-1]", True),
        ("x = [1]\nf(x)\nassert x == [2]", False),
        ("x = [1]\nassert f(x) == 1\nassert x == [2]", False),
        ("x, k = [1], [2]\nn = f(x)\nassert n == len(k)\nassert x[:n] == k", False),
        ("x, k = [1], [2]\nfor i in range(f(x)): assert x[i] == k[i]", False),
        # what the argument holds is said apart
        ("x = [1]\nassert f(x) == len(x)\nassert x == [2]", False),
    ],
)
def test_comparisons_with_an_argument(tests: str, compared: bool) -> None:
    assert (plan(tests).by_value is not None) is compared
    assert (
        plan(f"def check(f):\n{indent(tests, '    ')}", check="check").by_value is not None
    ) is (compared)


def test_calls_that_are_made_for_what_they_change() -> None:
    made = plan("x = [2, 1]\nf(x)\nassert f(x) == sorted(x)").by_value
    assert made is not None and made.splitlines()[1:] == [
        "f.in_place(x)",
        "assert f(x) == sorted(x)",
    ]


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert f(", "are not valid Python"),
        ("\0", "are not valid Python"),
        ("x = 1", "never call the program"),
        ("import numpy as np\nf(1)", "import numpy"),
        ("from torch import nn\nf(1)", "import torch"),
        ("assert f(1) is f(1)", "identity"),
        ("with case.assertRaises(KeyError):\n    assert f(1) == 2", "may never reach"),
        ("case.assertRaises(Own, f, 1)", "Own, which is not built in"),
        ("try:\n    f(1)\n    assert False\nexcept Exception: pass", "catches its own failure"),
        ("try:\n    f(1)\n    assert False\nexcept: pass", "catches its own failure"),
        ("try:\n    f(1)\n    raise AssertionError\nexcept AssertionError: pass", "own failure"),
        ("try:\n    assert f(1) == 1\nexcept ValueError: pass", "may never reach"),
        ("try:\n    f(1)\nexcept StopIteration: pass", "StopIteration, which is not passed on"),
        ("try:\n    f(1)\nexcept SystemExit: pass", "SystemExit, which is not passed on"),
        ("class E(Exception): pass\ntry:\n    f(1)\nexcept E: pass", "E, which is not built in"),
    ],
)
def test_refused_tests(tests: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plan(tests)


def test_a_check_that_is_not_there() -> None:
    for tests in ("f(1)", "def check(): f(1)", "def other(f): f(1)"):
        with pytest.raises(ValueError, match="define no function check"):
            plan(tests, check="check")


def test_rows_with_such_tests_are_bad() -> None:
    columns = {**MBPP, "test_list": ["assert add(1, 2) is add(2, 1)"]}
    with pytest.raises(ValueError, match="identity"):
        mbpp_row(Row(location="", columns=columns), "b", CodeConfig(row_format="mbpp"))
    columns = {
        "prompt": "def one():\n", "canonical_solution": "    return 1", "entry_point": "one",
        "test": "import numpy as np\ndef check(f):\n    assert f() == 1",
    }  # fmt: skip
    with pytest.raises(ValueError, match="import numpy"):
        humaneval_row(Row(location="", columns=columns), "h", CodeConfig())


def test_mbpp_as_it_is_published(tmp_path: Path) -> None:
    config = CodeConfig(row_format="mbpp")
    full, sanitized = tmp_path / "mbpp.jsonl", tmp_path / "sanitized-mbpp.json"
    full.write_text(json.dumps(MBPP) + "\n", encoding="utf-8")
    sanitized.write_text(json.dumps([SANITIZED, 3], indent=2), encoding="utf-8")
    [row] = read_source(str(full))
    assert isinstance(row, Row)
    made = mbpp_row(row, "b", config)
    assert made.solution == "def add(a, b):\n  return a + b"
    assert made.problem.prompt == (
        '"""\nWrite a function to add two numbers.\nassert add(1, 2) == 3\n"""\n'
    )
    tests = CodeTests.from_answer(made.problem.answer)
    assert tests.tests.count("assert") == 3 and "10**30" not in tests.tests
    row, bad = read_source(str(sanitized))
    assert isinstance(row, Row) and isinstance(bad, BadRow)
    assert str(bad) == f"{sanitized}, row 2: the row is a JSON int; it must be an object"
    tests = CodeTests.from_answer(mbpp_row(row, "b", config).problem.answer)
    assert (tests.names, tests.setup) == (("half",), "import math")


def test_a_row_whose_own_solution_fails_is_bad(tmp_path: Path) -> None:
    source = tmp_path / "mbpp.jsonl"
    rows = [MBPP, {**MBPP, "text": "Other.", "code": "def add(a, b):\n  return a - b"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked: list[str] = []

    def judge(problem: Problem, solution: str) -> Verdict:
        asked.append(solution)
        right = "a + b" in solution
        return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG, reason="a test fails")

    sizes: dict[str, Any] = {"demonstrations": 0, "validation": 0, "test": 0}
    config = CodeConfig(row_format="mbpp", train_rows=str(source))
    splits = CodeTask(config=config, judge=judge).make_splits(1, train=1, **sizes)
    assert [str(bad) for bad in splits.bad_rows] == [
        f"{source}, line 2: the row's solution does not pass the row's tests: a test fails"
    ]
    assert len(asked) == 2
    unchecked = CodeConfig(row_format="mbpp", train_rows=str(source), check_solutions=False)
    splits = CodeTask(config=unchecked, judge=judge).make_splits(1, train=2, **sizes)
    assert not splits.bad_rows and len(asked) == 2


PIECES = st.sampled_from(
    ["f", "(", ")", "x", "=", "==", "[1]", "\n", "assert ", "try:", "except", " ", "    ", ":",
     "ValueError", "import ", "lambda x: x", " is ", "def g(x):", "f(x)", "x = [1]\n", "pass", "1"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=20).map("".join) | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_tests_are_planned_or_refused(tests: str) -> None:
    try:
        made = plan_tests(tests, "", ("f",), None)
    except ValueError as error:
        assert str(error)
    else:
        compile(made.tests, "<tests>", "exec")
