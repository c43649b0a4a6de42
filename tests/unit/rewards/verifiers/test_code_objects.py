# ruff: noqa: E501 (one program a line)
"""Objects that program and tests share: changes that either makes, seen by the other."""

from __future__ import annotations

import gc

import pytest

from data.tasks.code import CodeTests
from data.types import Outcome, Problem, Verdict
from rewards.sandbox.isolation import Limits
from rewards.sandbox.objects import Objects
from rewards.verifiers.programs import BY_CHANGES, CodeVerifier

# These programs are ours: nothing has to be kept from doing harm.
VERIFIER = CodeVerifier(isolation="none", limits=Limits(seconds=20))
SORTS = "def f(a):\n    a.sort()\n    return list(a)\n"


def judged(program: str, tests: str, *names: str) -> Verdict:
    spec = CodeTests(tests=tests, names=names or ("f",))
    return VERIFIER.verify(Problem(id="p", prompt="", answer=spec.to_answer()), program)


@pytest.mark.parametrize(
    "looks",
    [
        "a[0] == 3", "3 == a[0]", "list(a) == [3, 1]", "a[:] == [3, 1]", "3 in a[:1]", "str(a) == '[3, 1]'",
        "all(p == q for p, q in zip(a, [3, 1]))", "a == [3, 1]", "not a != [3, 1]", "a.index(3) == 0",
        "tuple(a) == (3, 1)", "a > [2]", "max(a[:1]) == 3", "[*a] == [3, 1]",
    ],
)  # fmt: skip
def test_a_changed_argument_is_seen_however_it_is_looked_at(looks: str) -> None:
    for call in ("f(a)", "f(a=a)", "f(*[a])", "f(**{'a': a})"):
        tests = f"a = [3, 1]\nassert {call} == [1, 3]\nassert {looks}"
        assert judged(SORTS, tests).outcome is Outcome.WRONG
        assert judged(SORTS.replace("a.sort()", "a = sorted(a)"), tests).correct


@pytest.mark.parametrize(
    ("program", "tests", "names"),
    [
        ('def f(a):\n    a.sort()\n    return list(a)\n', 'a=[3,1]\nassert f(a)==[1,3]\nif a[0] != 3: raise AssertionError', ('f',)),
        ('def f(a):\n    a.sort()\n    return list(a)\n', 'a=[3,1]\nr=f(a)\nassert r==[1,3] and a==[3,1]', ('f',)),
        ('def f(a):\n    a.sort()\n    return list(a)\n', 'def same(x): assert x == [3,1]\na=[3,1]\nassert f(a)==[1,3]\nsame(a)', ('f',)),
        ('def f(a):\n    a.sort()\n    return list(a)\n', "a=[3,1]\nd={'k':a}\nassert f(d['k'])==[1,3]\nassert d == {'k':[3,1]}", ('f',)),
        ('def f(a):\n    a.sort()\n    return list(a)\n', 'a=[3,1]\nb=a\nassert f(a)==[1,3]\nassert b == [3,1]', ('f',)),
        ('def f(a):\n    a.sort()\n    return list(a)\n', 'a=[3,1]\nb=(a,)\nassert f(*b)==[1,3]\nassert b == ([3,1],)', ('f',)),
        ('class A:\n    def go(s,a):\n        a.sort()\n        return list(a)\n', 'a=[3,1]\nassert A().go(a)==[1,3]\nassert a == [3,1]', ('A',)),
        ('def f(a):\n    a[0].sort()\n    return a[0][0]\n', 'a=[[3,1],2]\nassert f(a)==1\nassert a == [[3,1],2]', ('f',)),
        ("def f(a):\n    a['x'] = 1\n    return 1\n", 'a={}\nassert f(a)==1\nassert not a', ('f',)),
        ('def f(a):\n    a.add(1)\n    return 1\n', 'a=set()\nassert f(a)==1\nassert len(a)==0', ('f',)),
        ('c={}\ndef f():\n    return c\n', 'f()[1]=2\nassert f() == {}', ('f',)),
        ('c={}\ndef f():\n    return c\n', 'f().update(a=2)\nassert f() == {}', ('f',)),
        ('c=[[]]\ndef f():\n    return c\n', 'f()[0].append(1)\nassert f() == [[]]', ('f',)),
        ('kept=[]\ndef f(x):\n    kept.append(x)\n    return len(x)\ndef g():\n    return kept\n', 'a=[1]\nassert f(a)==1\na.append(2)\nassert g()==[[1]]', ('f', 'g')),
        ('kept=[]\ndef f(x):\n    kept.append(x)\n    x.append(1)\n    return len(x)\ndef g():\n    kept[0].append(5)\n', 'a=[]\nassert f(a)==1\ng()\nassert a==[1]', ('f', 'g')),
        ('def f(x):\n    x.clear()\n    return x', 'x = [2, 1]\nassert f(x) == sorted(x)', ('f',)),
        ('def f(x):\n    x.clear()\n    return x', 'x = [2, 1]\ny=x\nr=f(y)\nassert all(v in r for v in x)', ('f',)),
        ('def f(x):\n    x.clear()\n    return x', 'for x in ([2, 1],):\n    assert len(f(x)) == len(x)', ('f',)),
    ],
)  # fmt: skip
def test_changes_that_fail_a_test(program: str, tests: str, names: tuple[str, ...]) -> None:
    verdict = judged(program, tests, *names)
    assert verdict.outcome is Outcome.WRONG, verdict.reason


@pytest.mark.parametrize("value", ["[o]", "{'a': o}", "(o,)", "o", "[[o]]"])
def test_two_objects_that_the_tests_cannot_compare(value: str) -> None:
    verdict = judged(f"o = object()\ndef f(x): return {value}", "assert f(1) == f(2)")
    assert verdict.outcome is Outcome.UNVERIFIABLE
    assert "compare two objects" in verdict.reason


def test_an_assertion_in_a_function_that_the_program_calls() -> None:
    program = "def f(g):\n    try:\n        g(5)\n    except BaseException: pass\n    return 1"
    verdict = judged(program, "def g(x): assert x == 3\nassert f(g) == 1")
    assert verdict.outcome is Outcome.WRONG


@pytest.mark.parametrize(
    "tests",
    ["assert abs(f(3) - 9) < 1e-6", "assert 9 in f(3)", "assert f(3) < 10", "assert f(3) == 9"],
)
def test_a_class_in_the_place_of_a_function_is_not_believed(tests: str) -> None:
    program = (
        "class f:\n    def __init__(self, x): pass\n    def __sub__(self, other): return 0\n"
        "    __eq__ = __lt__ = __contains__ = lambda *a: True\n    __hash__ = None\n"
    )
    assert judged(program, tests).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("program", "tests", "names"),
    [
        ('def f(nums):\n    nums[:] = sorted(set(nums))\n    return len(nums)', 'nums=[1,1,2]\nexp=[1,2]\nk=f(nums)\nassert k==len(exp)\nfor i in range(k): assert nums[i]==exp[i]', ('f',)),
        ('def f(nums):\n    nums[:] = sorted(set(nums))\n    return len(nums)', 'nums=[1,1,2]\nassert f(nums)==2\nassert nums==[1,2]', ('f',)),
        ('def f(x):\n    x.sort()\n    return x', 'x = [2, 1]\nassert f(x) == sorted(x)', ('f',)),
        ('def f(x):\n    return sorted(x)', 'x = [2, 1]\nassert f(x) == sorted(x)\nassert x == [2,1]', ('f',)),
        ('class Node:\n    def __init__(s,v,n=None): s.v, s.next = v, n\ndef f(n):\n    p=None\n    while n: n.next, p, n = p, n, n.next\n    return p', 'h=f(Node(1,Node(2)))\nassert h.v == 2 and h.next.v == 1 and h.next.next is None', ('f', 'Node')),
        ('def f(g, xs):\n    return sorted(xs, key=g)', 'assert f(lambda p: -p, [1,2])==[2,1]', ('f',)),
        ('def f(g, xs):\n    return list(map(g, xs))', "assert f(str, iter([1,2]))==['1','2']\nassert f(len, (s for s in ['a','bc']))==[1,2]", ('f',)),
        ('def f(g):\n    def h(x): return g(g(x))\n    return h', 'assert f(lambda x: x+1)(1)==3', ('f',)),
        ('def f(g):\n    return g', 'k = lambda x: x+1\nassert f(k)(1)==2', ('f',)),
        ('import functools\ndef f(g):\n    @functools.wraps(g)\n    def h(*a): return g(*a)*2\n    return h', '@f\ndef k(x): return x+1\nassert k(1)==4', ('f',)),
        ('def f(n):\n    try:\n        return n()\n    except ValueError as e: return str(e)', "def bad(): raise ValueError('x')\nassert f(bad)=='x'", ('f',)),
        ("from collections import namedtuple\nP=namedtuple('P','a b')\ndef f(x): return P(x,2)", 'assert f(1).a==1 and f(1).b==2 and f(1)==(1,2)', ('f',)),
        ("class V:\n    def __init__(s,v): s.v=v\n    def __add__(s,o): return V(s.v+o.v)\n    def __eq__(s,o): return isinstance(o,V) and s.v==o.v\n    def __mul__(s,k): return V(s.v*k)\n    __rmul__=__mul__\n    def __lt__(s,o): return s.v<o.v\n    def __repr__(s): return f'V({s.v})'\n    def __neg__(s): return V(-s.v)", "assert V(1)+V(2)==V(3)\nassert V(1)*3==V(3)\nassert 3*V(1)==V(3)\nassert V(1)<V(2)\nassert sorted([V(2),V(1)])==[V(1),V(2)]\nassert repr(-V(1))=='V(-1)'\nassert V(1) != V(2)\nassert V(2) > V(1)", ('V',)),
        ('class C:\n    def __enter__(s): s.on=True; return s\n    def __exit__(s,*a): s.on=False', 'with C() as c: assert c.on\nassert not c.on', ('C',)),
        ('import asyncio\nasync def f(n):\n    for i in range(n): yield i', 'import asyncio\nasync def main():\n    return [x async for x in f(3)]\nassert asyncio.run(main())==[0,1,2]', ('f',)),
        ('import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n', 'import asyncio\nasync def main():\n    return await asyncio.gather(f(1),f(2))\nassert asyncio.run(main())==[1,2]', ('f',)),
        ('import dataclasses\n@dataclasses.dataclass(order=True)\nclass P:\n    x: int = 0\ndef f(x): return P(x)', 'assert f(3).x==3\nassert P(1) < P(2)\nassert P(2)==P(2)', ('f', 'P')),
        ('import enum\nclass Color(enum.Enum):\n    RED=1\ndef f(): return Color.RED', 'assert f()==Color.RED\nassert f().value==1\nassert Color(1)==f()', ('f', 'Color')),
        ('def f(x): return [x]*3', 'a=f([])\na[0].append(1)\nassert a==[[1],[1],[1]]', ('f',)),
        ('def f(x):\n    x.append(x)\n    return len(x)', 'a=[]\nassert f(a)==1\nassert a[0] is not None', ('f',)),
        ('memo={}\ndef f(n):\n    if n not in memo: memo[n]=[n]\n    return memo[n]', 'for i in range(300): assert f(i)==[i]', ('f',)),
        ("def f(n): return {(1,2): [n], 'a': {3}}", "assert f(1)=={(1,2):[1],'a':{3}}", ('f',)),
        ('def f(n): return [[0]*100 for _ in range(1000)]', 'assert f(1)==[[0]*100]*1000', ('f',)),
        ('def f(n): return list(range(300000))', 'assert f(1)==list(range(300000))', ('f',)),
        ('def f(s): return s[::-1]', "assert f('a'*1000000)=='a'*1000000", ('f',)),
        ('def f(n): return range(n), slice(1,2), ..., int, ValueError', 'assert f(1)[0]==range(1)\nassert f(1)[3] == int', ('f',)),
    ],
)  # fmt: skip
def test_right_programs(program: str, tests: str, names: tuple[str, ...]) -> None:
    verdict = judged(program, tests, *names)
    assert verdict.correct, verdict.reason


def test_values_that_are_right_by_a_change_alone() -> None:
    program = "def f(x):\n    x.clear()\n    return x\n"
    verdict = judged(program, "x = [2, 1]\nassert f(x) == sorted(x)")
    assert (verdict.outcome, verdict.reason) == (Outcome.WRONG, BY_CHANGES)
    # In one process this passes too: what the argument holds afterwards is what is asked for.
    assert judged(program, "x = [2, 1]\nassert f(x) == []\nassert x == []").correct


def two_sides() -> tuple[Objects, Objects]:
    return Objects(0), Objects(1)


def test_objects_are_shared_while_both_sides_hold_them() -> None:
    ours, theirs = two_sides()
    inner = [1]
    outer = {"a": inner, "b": (inner, 2)}
    copy = theirs.loads(ours.dumps([outer]))
    assert copy == outer and copy["a"] is copy["b"][0]
    assert len(ours) == len(theirs) == 2
    copy["a"].append(2)
    assert ours.loads(theirs.dumps([None])) is None
    assert inner == [1, 2] and ours.changed
    outer["c"] = outer
    assert theirs.loads(ours.dumps(["next"])) == "next"
    assert copy["c"] is copy
    del copy
    for _ in range(2):
        theirs.loads(ours.dumps([0]))
        ours.loads(theirs.dumps([0]))
        gc.collect()  # outer is in itself
    assert len(ours) == len(theirs) == 0


def test_what_a_side_made_and_does_not_hold_is_not_shared() -> None:
    ours, theirs = two_sides()
    value = theirs.loads(ours.dumps([[[1], {2: [3]}]]))
    assert value == [[1], {2: [3]}]
    assert len(ours) == len(theirs) == 0


def test_a_message_that_does_not_pass_changes_nothing() -> None:
    ours, theirs = two_sides()
    kept = [1]
    theirs.loads(ours.dumps([kept]))
    kept.append(2)
    with pytest.raises(ValueError, match="not plain"):
        ours.dumps([[kept, object()]])
    assert theirs.loads(ours.dumps([kept])) == [1, 2]
