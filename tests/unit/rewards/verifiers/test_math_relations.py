"""Relations are equal where their solutions are; a pair is no interval."""

from __future__ import annotations

import pytest

from tests.unit.rewards.verifiers.math_judging import UNVERIFIABLE, WRONG, boxed

EQUAL = [
    ("\\{x : x > 1\\}", "\\{x : 1<x\\}"),
    ("\\{x : x > 1\\}", "\\{y \\mid y > 1\\}"),
    ("\\{x : x > 1\\}", "x>1"),
    ("\\{x : x > 1\\}", "(1,\\infty)"),
    ("(1,\\infty)", "\\{x \\in \\mathbb{R} \\mid x>1\\}"),
    ("x^2<4", "-2<x<2"),
    ("|x|<2", "-2<x<2"),
    ("x+y>1", "1<x+y"),
    ("x<1", "-x>-1"),
    ("x>1", "2x>2"),
    ("x \\ge 1", "x>=1"),
    ("x\\ne1", "x \\not= 1"),
    ("x<3", "-\\infty<x<3"),
    ("(1,2]", "\\{x: 1<x\\le2\\}"),
    ("x^2+y^2=4", "x^2=4-y^2"),
    ("y=x^2", "x^2-y=0"),
    ("xy=1", "y=\\frac1x"),
    ("x\\le -1 \\text{ or } x\\ge 1", "x\\ge1\\text{ or }x\\le-1"),
]

NOT_EQUAL = [
    ("x>x", "y>y"),
    ("1=2", "3=4"),
    ("1=1", "2=2"),
    ("x=x", "y=y"),
    ("x-x=1", "y-y=1"),
    ("0x=0", "0y=0"),
    ("x<x+1", "y<y+1"),
    ("x>1", "y>1"),
    ("x>1", "x<1"),
    ("x \\ge 1", "x>1"),
    ("\\{x : x > 1\\}", "\\{x : x < 1\\}"),
    ("\\{x : x > 1\\}", "\\{x : x \\ge 1\\}"),
    ("\\{x \\mid x > 1\\}", "\\{x \\mid x < 1\\}"),
    ("\\{x \\in \\mathbb{R} : x > 1\\}", "\\{x \\in \\mathbb{R} : x < 1\\}"),
    ("\\{n : n > 1\\}", "n<1"),
    ("x+y>1", "x+y<1"),
    ("x+y=1", "x+y=2"),
    ("x=y", "x=-y"),
    ("x^2=1", "x^2=4"),
    ("x^2>1", "x>1"),
    ("a<b", "b<a"),
    ("x<1", "-x<-1"),
    ("\\{1=2\\}", "\\{3=4\\}"),
    ("x \\ne 1", "x \\ne 2"),
    ("2<x<3", "2<y<3"),
    ("1<2", "2<3"),
    ("0=1", "1=0"),
    ("x^2<0", "x^2<-1"),
    ("|x|<2", "|x|>2"),
    ("x\\mid 6", "x\\mid 7"),
    ("x\\equiv 1 \\pmod 3", "x\\equiv 2\\pmod 3"),
    ("A\\subset B", "B\\subset A"),
    ("x\\in\\{1,2\\}", "x\\in\\{1,3\\}"),
    ("x\\notin [1,2]", "x\\in[1,2]"),
    ("\\{x:x>1\\}", "\\{x:y>1\\}"),
    ("\\{x \\in \\mathbb{Z}: x>1\\}", "\\{x\\in\\mathbb{R}:x>1\\}"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_the_same_solutions(gold: str, answer: str) -> None:
    assert boxed(gold, answer).correct, boxed(gold, answer).reason


@pytest.mark.parametrize(("gold", "answer"), NOT_EQUAL)
def test_other_solutions_or_other_letters(gold: str, answer: str) -> None:
    assert not boxed(gold, answer).correct


@pytest.mark.parametrize(
    ("gold", "answer"), [("1=2", "3=4"), ("x>x", "x<x"), ("x^2=-1", "x^2=-2"), ("1<2", "2<3")]
)
def test_what_says_nothing_is_unverifiable(gold: str, answer: str) -> None:
    assert boxed(gold, answer).outcome is UNVERIFIABLE


POINTS = (
    "What point is it?", "Find the coordinates of the midpoint.", "Find the ordered pair $(x, y)$."
)  # fmt: skip
INTERVALS = ("Solve the inequality.", "Give it in interval notation.", "What is the domain of $f$?")
INEQUALITIES = ("x \\in (3, 4)", "3 < x < 4", "3<y<4", "\\{x : 3<x<4\\}", "4 > x > 3")


@pytest.mark.parametrize("answer", INEQUALITIES)
def test_a_point_is_no_interval(answer: str) -> None:
    for question in POINTS:
        assert boxed("(3, 4)", answer, question).outcome is WRONG
        assert not boxed(answer, "(3, 4)", question).correct
        assert not boxed("(3, 4, 5)", answer, question).correct
    for question in INTERVALS:
        assert boxed("(3, 4)", answer, question).correct
    assert boxed("(3, 4)", answer).outcome is UNVERIFIABLE  # nobody knows which
    assert not boxed("(3, 4)", "x>3 \\text{ and } x<4", POINTS[0]).correct


def test_what_can_only_be_an_interval() -> None:
    assert boxed("[3, 4)", "3 \\le x < 4").correct
    assert boxed("(3, \\infty)", "x > 3", POINTS[0]).correct
    assert not boxed("(3, 4)", "[3, 4]", POINTS[0]).correct
    assert boxed("(3, 4)", "x = 3, y = 4", POINTS[0]).correct
    assert not boxed("(3, 4)", "x = 4, y = 3", POINTS[0]).correct
    assert not boxed("(3, 4)", "3, 4", POINTS[0]).correct
