# ruff: noqa: E501 (one program a line)
"""The forms in which solutions hold a program, and programs that use more of Python."""

from __future__ import annotations

import importlib.util
import os
import time

import pytest

from data.tasks.code import CodeTests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.interpreter import package_folders, python
from rewards.sandbox.isolation import Limits, why_not_isolated
from rewards.verifiers.programs import CodeVerifier
from rewards.verifiers.solutions import readings

VERIFIER = CodeVerifier(isolation="none", limits=Limits(seconds=20))
PREFIX = 'from typing import List\n\n\ndef f(x: int) -> int:\n    """ Square.\n    >>> f(3)\n    9\n    """\n'
CHECK = "def check(candidate):\n    assert candidate(3) == 9\n    assert candidate(4) == 16\n"
WHOLE = "def f(x):\n    return x * x\n"


def judged(solution: str, tests: str = CHECK, *names: str, prefix: str = PREFIX) -> Verdict:
    check = "check" if tests == CHECK else None
    spec = CodeTests(tests=tests, names=names or ("f",), check=check, prefix=prefix)
    return VERIFIER.verify(Problem(id="p", prompt="", answer=spec.to_answer()), solution)


@pytest.mark.parametrize(
    "solution",
    [
        "return x * x\n",
        "y = x * x\n    return y\n",
        "y = x * x\nreturn y\n",
        WHOLE + "\nThis squares x.\n",
        "    return x * x\n\nThat is the square.",
        "    return x * x\n\ndef g(y):\n    return f(",
        "    return x * x\n\ndef f(x):\n    return x +",
        "    s = '''\ndef\n'''\n    return x * x\n",
        f"```python\n{WHOLE}```".replace("\n", "\r"),
        f"```python\n\ufeff{WHOLE}```",
        "\ufeff" + WHOLE,
        f"```python\n{WHOLE.replace('    ', chr(160) * 4)}```",
        f'```python\n"""Doc."""\nfrom __future__ import annotations\n\n{WHOLE}```',
        f"```python\nfrom __future__ import annotations\n{WHOLE}```",
        f"Sure:\n```python\n{WHOLE}",
        f"Sure:\n```python\n{WHOLE}\nThis squares x.",
        f"```python\n{WHOLE.replace('x * x', '0')}```\nBetter:\n```python\n{WHOLE}",
        'Code:\n```python\ndef f(x):\n    """Squares.\n\n    ```\n    f(3) == 9\n    ```\n    """\n    return x * x\n```\n',
        "```python\ndef sq(x):\n    return x * x\n```\nand\n```python\ndef f(x):\n    return sq(x)\n```",
        "```python\ndef f(x):\n    return sq(x)\n```\nwith\n```python\nprint(f(3))\ndef sq(x):\n    return x * x\n```",
        f"```python\n{WHOLE}\nn = int(input())\nprint(f(n))\n```",
        f"```python\n{WHOLE}\nimport sys\nsys.exit(0)\n```",
        f"```code\n{WHOLE}```",
        f"```plaintext\n{WHOLE}```",
        "```python def f(x): return x * x```",
        f"```python\n{WHOLE.rstrip()}```",
        "`def f(x): return x * x`",
        f"[BEGIN]\n{WHOLE}[DONE]\n",
        f"[PYTHON]\n{WHOLE}[/PYTHON]",
        f"<answer>\n{WHOLE}</answer>",
        f"{WHOLE}[DONE]\n\nYou are an expert.",
    ],
)
def test_forms_of_solutions(solution: str) -> None:
    verdict = judged(solution)
    assert verdict.correct, verdict.reason
    wrong = judged(solution.replace("x * x", "x + 1"))
    assert wrong.outcome is Outcome.WRONG, wrong.reason


@pytest.mark.parametrize(
    "solution",
    [
        "It is x times x.",
        "```python\ndef f(x:\n```",
        "    return (",
        "def f(x)\n    return",
        "```",
        "",
    ],
)
def test_what_holds_no_program_is_unverifiable(solution: str) -> None:
    assert judged(solution).outcome is Outcome.UNVERIFIABLE


@pytest.mark.parametrize(
    "program",
    [
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x * x).x",
        "from dataclasses import dataclass\n@dataclass\nclass N:\n    v: int\n    next: 'N | None' = None\ndef f(x): return N(x, N(x)).next.v * x",
        "import pickle\nclass P:\n    def __init__(s, v): s.v = v\ndef f(x): return pickle.loads(pickle.dumps(P(x))).v * x",
        "import copy\nfrom enum import Enum\nclass C(Enum):\n    A = 1\ndef f(x): return copy.deepcopy(C.A).value * x * x",
        "seen = []\ndef reg(t):\n    seen.append(t); return t\ndef g(x: reg(int)): pass\ndef f(x): return x * x if seen else 0",
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(512 << 20)\ndef f(n):\n    r = []\n    t = threading.Thread(target=lambda: r.append(n * n))\n    t.start(); t.join()\n    return r[0]",
        "from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n    with ThreadPoolExecutor(max_workers=16) as p:\n        return sum(p.map(lambda y: y, [x] * 40)) * x // 40",
        "import typing, collections.abc\nT = typing.TypeVar('T')\nclass A(typing.Generic[T]): pass\ndef f(x): return x * x",
        "class Solution:\n    def f(self, x: int) -> int:\n        return x * x",
        "class Solution:\n    def f(self, nums: List[int]) -> Optional[int]:\n        return reduce(operator.mul, [nums, nums])",
    ],
)
def test_programs_that_use_more_of_python(program: str) -> None:
    for solution in (program, f"```python\n{program}\n```"):
        verdict = judged(solution, CHECK, prefix="")
        assert verdict.correct, verdict.reason


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(n): return '\\u00e9' * n", "assert f(10**6) == '\\u00e9' * 10**6"),
        ("def f(n): return [True] * n", "assert f(500000) == [True] * 500000"),
        ("def f(n): return list(range(n))", "assert sum(f(300000)) == 300000 * 299999 // 2"),
        (
            "def f(n):\n    a = []\n    for _ in range(n): a = [a]\n    return a",
            "x = []\nfor _ in range(80): x = [x]\nassert f(80) == x",
        ),
        ("def f(d): return d.keys()", "assert f({1: 2}) == {1: 2}.keys()"),
        (
            "from array import array\ndef f(x): return array('i', [x])",
            "from array import array\nassert f(3) == array('i', [3])",
        ),
        (
            "from enum import Enum\nclass C(str, Enum):\n    RED = 'red'\ndef f(x): return C.RED",
            "assert f(1) == 'red'",
        ),
        (
            "class C(list):\n    def __iter__(s): return iter(sorted(list.__iter__(s)))\ndef f(x): return C([2, 1])",
            "assert f(1) == [2, 1]",
        ),
        ("def f(x): return [x]", "assert type(f(1)) is list"),
        (
            "def f(x): print(x)",
            "import io, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    f(3)\nassert b.getvalue() == '3\\n'",
        ),
        (
            "def f(x): raise ValueError",
            "import unittest\nunittest.TestCase().assertRaises(ValueError, f, 1)",
        ),
        ("def f(k): return k('1')", "assert f(int) == 1"),
        ("def f(i): return sum(i)", "assert f({1: 2}.values()) == 2"),
    ],
)
def test_values_that_pass(program: str, tests: str) -> None:
    verdict = judged(program, tests, prefix="")
    assert verdict.correct, verdict.reason


@pytest.mark.parametrize(
    "value",
    [
        "'x' * (20 << 20)",
        "[0] * (20 << 20)",
        "__import__('functools').reduce(lambda a, _: (a,), range(500))",
    ],
)
def test_values_that_are_too_large_are_not_wrong(value: str) -> None:
    verdict = judged(f"def f(x): return {value}", "assert f(1) == 1", prefix="")
    assert verdict.outcome is Outcome.UNVERIFIABLE
    assert "not passed on" in verdict.reason


def test_numpy_and_sympy_in_the_sandbox() -> None:
    reason = why_not_isolated()
    if reason is not None:
        if os.environ.get("THINKTREE_REQUIRE_SANDBOX") == "1":
            pytest.fail(f"THINKTREE_REQUIRE_SANDBOX=1, but {reason}")
        pytest.skip(reason)
    given = {folder.rpartition("/")[2] for folder in package_folders(python())}
    for name, program in {
        "numpy": "import numpy as np\ndef f(x): return np.array([x, x]).prod() if x != 4 else np.int64(16)",
        "sympy": "import sympy\ndef f(x): return sympy.Integer(x) ** 2",
    }.items():
        if name not in given or importlib.util.find_spec(name) is None:
            pytest.skip(f"this machine's sandbox has no {name}")
        spec = CodeTests(tests=CHECK, names=("f",), check="check")
        problem = Problem(id="p", prompt="", answer=spec.to_answer())
        verdict = CodeVerifier(limits=Limits(seconds=30)).verify(problem, program)
        assert verdict.correct, verdict.reason


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" * 20_000,
        "```\n" * 50_000,
        "`" * 200_000,
        "[BEGIN]\n" * 20_000,
        "f=1\n```py\n" * 15_000,
        "\ndef f(x): x" * 15_000,
    ],
)
def test_readings_of_hostile_text_take_no_time(text: str) -> None:
    began = time.process_time()
    assert len(readings(text, PREFIX, ("f",))) <= 60
    assert time.process_time() - began < 5
