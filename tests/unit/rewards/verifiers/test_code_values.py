# ruff: noqa: E501 (one program a line)
"""What passes between a program and its tests: exceptions, arguments, objects, iterators."""

from __future__ import annotations

import pytest

from data.tasks.code import CodeTests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.isolation import Limits
from rewards.verifiers.programs import CodeVerifier

# These programs are ours: nothing has to be kept from doing harm.
VERIFIER = CodeVerifier(isolation="none", limits=Limits(seconds=20))


def judged(program: str, tests: str, *names: str) -> Verdict:
    spec = CodeTests(tests=tests, names=names or ("f",))
    return VERIFIER.verify(Problem(id="p", prompt="", answer=spec.to_answer()), program)


RAISES = "try:\n    f(-1)\n    assert False\nexcept ValueError as error:\n    assert 'low' in str(error)\n"
IN_PLACE = "x = [3, [2], 1]\ninner = x[1]\nf(x)\nassert x == [1, [2, 9], 3]\nassert inner == [2, 9]"
STACK = (
    "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
    "    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n"
)
USES_STACK = (
    "s = Stack()\ns.push(1)\ns.push([2])\nassert len(s) == 2\nassert s.pop() == [2]\n"
    "assert s.items == [1]\nassert Stack.__name__ == 'Stack'\n"
)
PAIRS = (
    "class Pair:\n    kind = 'pair'\n    def __init__(self, a, b): self.a, self.b = a, b\n"
    "def f(pairs): return [p.a + p.b for p in pairs]\n"
)


@pytest.mark.parametrize(
    ("program", "tests", "names"),
    [
        ("def f(x):\n    if x < 0: raise ValueError('too low')\n    return x", RAISES, ("f",)),
        (
            "class Low(ValueError): pass\ndef f(x):\n    raise Low('low')",
            RAISES,
            ("f",),
        ),
        (
            "def f(x):\n    raise KeyError(x)",
            "try:\n    f(1)\nexcept LookupError as e:\n    assert e.args == (1,)\nelse:\n    assert 0",
            ("f",),
        ),
        ("def f(x):\n    x.reverse()\n    x[1].append(9)", IN_PLACE, ("f",)),
        ("def f(d, k):\n    d.pop(k)", "d = {1: 2, 3: 4}\nf(d, 1)\nassert d == {3: 4}", ("f",)),
        (STACK, USES_STACK, ("Stack",)),
        (PAIRS, "assert f([Pair(1, 2), Pair(3, b=4)]) == [3, 7]", ("f", "Pair")),
        (PAIRS, "p = Pair(1, 2)\np.a = 5\nassert Pair.kind == 'pair'\nassert f([p]) == [7]",
         ("f", "Pair")),
        ("def f(n):\n    i = 0\n    while True:\n        yield i\n        i += n",
         "g = f(3)\nassert [next(g), next(g), next(g)] == [0, 3, 6]", ("f",)),
        ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]", ("f",)),
        ("def f(x): return map(abs, x)", "assert list(f([-1, 2])) == [1, 2]", ("f",)),
        ("from collections import Counter\ndef f(x): return Counter(x)",
         "assert f('aab') == {'a': 2, 'b': 1}", ("f",)),
        ("from collections import defaultdict\ndef f(x):\n    d = defaultdict(int)\n    d[x] += 1\n    return d",
         "assert f(1) == {1: 1}", ("f",)),
        ("from collections import namedtuple\nP = namedtuple('P', 'a b')\ndef f(x): return [P(x, 1)]",
         "assert f(2) == [(2, 1)]", ("f",)),
        ("import enum\nclass C(enum.IntEnum):\n    A = 3\ndef f(): return C.A", "assert f() == 3", ("f",)),
        ("from decimal import Decimal\ndef f(): return Decimal('0.5')", "assert f() == 0.5", ("f",)),
        ("def f(x): return range(x)", "assert f(3) == range(3)", ("f",)),
        ("def f(d): return d.keys()", "assert list(f({1: 2})) == [1]", ("f",)),
    ],
)  # fmt: skip
def test_right_programs(program: str, tests: str, names: tuple[str, ...]) -> None:
    verdict = judged(program, tests, *names)
    assert verdict.correct, verdict.reason


EVERYTHING = (
    "class E:\n"
    "    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
    "    def __lt__(self, other): return True\n    def __contains__(self, other): return True\n"
    "    def __hash__(self): return 0\n    def __sub__(self, other): return 0\n"
    "    def __getattr__(self, name): return E()\n    def __call__(self, *a): return E()\n"
    "    def __index__(self): return 9\n    def __float__(self): return 9.0\n"
)


@pytest.mark.parametrize(
    ("program", "tests", "names"),
    [
        ("def f(x): return x", RAISES, ("f",)),
        ("def f(x): raise TypeError('low')", RAISES, ("f",)),
        ("def f(x): raise ValueError('high')", RAISES, ("f",)),
        ("def f(x): raise AssertionError", RAISES, ("f",)),
        ("def f(x): raise StopIteration", "assert list(map(f, [1, 2])) == []", ("f",)),
        ("def f(x): raise StopIteration", "assert all(f(x) == x for x in [1, 2])", ("f",)),
        ("def f(x): raise IndexError", "assert f(1) == 1", ("f",)),
        ("def f(x): return x[::-1]", IN_PLACE, ("f",)),
        ("def f(x): x.clear()", IN_PLACE, ("f",)),
        # empties its argument, so that what is expected is empty too
        ("def f(x):\n    x.clear()\n    return x", "x = [2, 1]\nassert f(x) == sorted(x)", ("f",)),
        ("def f(x):\n    x.clear()\n    return x", "x = [2, 1]\nr = f(x)\nassert r == sorted(x)",
         ("f",)),
        (STACK.replace("pop()", "pop(0)"), USES_STACK, ("Stack",)),
        (EVERYTHING + "def f(x): return E()", "assert f(3) == 9", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert 9 == f(3)", ("f",)),
        (EVERYTHING + "def f(x): return [E()]", "assert f(3) == [9]", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert not f(3) != 9", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert abs(f(3) - 9) < 1e-6", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert f(3) < 9", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert 9 in f(3)", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert f(3) in [9]", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert {f(3)} == {9}", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert f(3).a == 9", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert f(3).a() == 9", ("f",)),
        (EVERYTHING + "def f(x): return E()", "import math\nassert math.isclose(f(3), 9)", ("f",)),
        (EVERYTHING + "def f(x): return E()", "assert f(E()) == 9", ("f", "E")),
        ("class I(int):\n    __eq__ = lambda a, b: True\n    __hash__ = None\ndef f(x): return I(1)",
         "assert f(3) == 9", ("f",)),
        ("class L(list):\n    __eq__ = lambda a, b: True\ndef f(x): return L()",
         "assert f(3) == [9]", ("f",)),
        # numbers of values that are not there, or are the harness's
        ("import sys\nm = sys.modules['rewards.sandbox.run_program']\n"
         "m.dumps = lambda *a: '[\"list\", [[\"str\", \"value\"], [\"handle\", \"ff\"]]]'\n"
         "def f(x): return 1", "assert f(3).a == 9", ("f",)),
        ("import sys\nm = sys.modules['rewards.sandbox.run_program']\n"
         "m.dumps = lambda *a: '[\"list\", [[\"str\", \"raised\"], [\"str\", \"SystemExit\"], "
         "[\"list\", []], [\"str\", \"\"]]]'\ndef f(x): return 1", "assert f(3) == 9", ("f",)),
    ],
)  # fmt: skip
def test_wrong_programs(program: str, tests: str, names: tuple[str, ...]) -> None:
    verdict = judged(program, tests, *names)
    assert verdict.outcome is Outcome.WRONG, verdict.reason


def test_tests_that_cannot_be_judged_are_nobodys_fault() -> None:
    for tests in (
        "import numpy\nassert f(1) == 1",
        "assert f(1) is f(1)",
    ):
        verdict = judged("def f(x): return x", tests)
        assert verdict.outcome is Outcome.UNVERIFIABLE
        assert "cannot be judged: the tests" in verdict.reason
    verdict = judged("def f(x): return x", "class A: pass\nassert f(A()) == 1")
    assert verdict.outcome is Outcome.UNVERIFIABLE and "not plain" in verdict.reason
