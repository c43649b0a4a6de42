"""The Countdown verifier, each rule broken alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tasks.countdown import demonstrate, make_problem
from data.types import Outcome, Problem
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.countdown import CountdownVerifier

PROBLEM = make_problem((3, 4, 7, 12), 24)
ENDS_AT_12 = "7 - 4 = 3 | 3 12 3\n12 * 3 = 36 | 3 36\n36 / 3 = 12 | 12"
ENDS_AT_18 = "12 + 7 = 19 | 3 4 19\n19 - 4 = 15 | 3 15\n15 + 3 = 18 | 18"


def judge(solution: str, numbers: Sequence[int] = (3, 4, 7, 12), target: int = 24) -> Outcome:
    return CountdownVerifier().verify(make_problem(numbers, target), solution).outcome


@pytest.mark.parametrize(
    ("numbers", "target", "solution"),
    [
        ((3, 4, 7, 12), 12, ENDS_AT_12),
        ((3, 4, 7, 12), 18, ENDS_AT_18),
        ((3, 4, 7, 12), 21, "3 * 7 = 21 | 4 12 21"),  # not all numbers are needed
        ((3, 4, 7, 12), 21, "7 * 3 = 21 | 21 12 4"),  # remaining in any order
        ((3, 3, 4), 9, "3 * 3 = 9 | 4 9"),  # the same number twice, given twice
        ((50, 50, 3), 2500, "50 * 50 = 2500 | 3 2500"),  # no cap unless asked for
    ],
)
def test_correct(numbers: tuple[int, ...], target: int, solution: str) -> None:
    verdict = CountdownVerifier().verify(make_problem(numbers, target), solution)
    assert verdict.outcome is Outcome.CORRECT
    assert verdict.reason == ""


@pytest.mark.parametrize(
    ("numbers", "target", "solution", "reason"),
    [
        ((3, 4, 7), 9, "3 * 3 = 9 | 4 7 9", "step 1: 3 is not among"),
        ((3, 4, 7), 10, "3 + 4 = 7 | 7 7\n7 + 3 = 10 | 7 10", "step 2: 3 is not among"),
        ((12, 4, 7), 3, "2 + 1 = 3 | 12 4 7 3", "step 1: 2 is not among"),  # digits of 12
        ((3, 4, 7), 9, "4 + 5 = 9 | 3 7 9", "step 1: 5 is not among"),
        ((3, 4, 7), 2, "7 / 3 = 2 | 4 2", "step 1: 7 / 3 is not a whole number"),
        ((3, 3, 7), 7, "3 - 3 = 0 | 7 0\n7 + 0 = 7 | 7", "step 1: 3 - 3 is not a whole number"),
        ((3, 4, 7), 9, "3 + 4 = 9 | 7 9", "step 1: 3 + 4 is 7, not 9"),
        ((3, 4, 7), 12, "3 * 4 = 12 | 12", "the remaining numbers are [7, 12], not [12]"),
        ((3, 4, 7), 12, "3 * 4 = 12 | 7 7 12", "the remaining numbers are [7, 12]"),
        ((3, 4, 7), 12, "3 * 4 = 12 | 4 12", "the remaining numbers are [7, 12], not [4, 12]"),
        ((3, 3, 7), 10, "3 + 7 = 10 | 10", "the remaining numbers are [3, 10]"),
        ((3, 4, 7), 24, "3 * 4 = 12 | 7 12", "the last result is 12, the target is 24"),
        ((3, 4, 24), 12, "3 * 4 = 12 | 24 12\n24 - 12 = 12 | 12", "step 1: the target 12 is re"),
        ((3, 4, 7), 12, "3 * 4 = 12 | 7 12\n12 - 7 = 5 | 5", "step 1: the target 12 is reached"),
        ((3, 4, 24), 24, "3 + 4 = 7 | 24 7", "the last result is 7"),  # 24 stands in the text
        ((3, 4, 7), 2, "3 * 4 = 12 | 7 12", "the last result is 12, the target is 2"),
    ],
)
def test_wrong(numbers: tuple[int, ...], target: int, solution: str, reason: str) -> None:
    verdict = CountdownVerifier().verify(make_problem(numbers, target), solution)
    assert verdict.outcome is Outcome.WRONG
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "solution",
    [
        "",
        "24",
        "The answer is 24",
        "12 * 3 = 36",
        "3 * 7 = 21 | 4 12 21 ",
        "\n3 * 7 = 21 | 4 12 21",
        "3 * 7 = 21 | 4 12 21\n\n",
        "3 * 7 = 21 | 4 12 21\nso 21",
        "3 * 7 = 21 | 4 12 21<eos>",
        "3 * 7 = 21 | 4 12 021",
        "3 * 7 = 2\u0661 | 4 12 21",
        "3 * 7 = 21 | 4 12 " + "9" * 10_000,
        "3 * 7 = 22 | 4 12 22\n22 +",  # truncated, though false before that
    ],
)
def test_unverifiable(solution: str) -> None:
    verdict = CountdownVerifier().verify(make_problem((3, 4, 7, 12), 21), solution)
    assert verdict.outcome is Outcome.UNVERIFIABLE
    assert "is not of the form" in verdict.reason
    assert not verdict.well_formed


def test_cap_only_where_asked_for() -> None:
    problem = make_problem((5, 9, 3), 15)
    solution = "9 * 5 = 45 | 3 45\n45 / 3 = 15 | 15"
    assert CountdownVerifier().verify(problem, solution).correct
    assert CountdownVerifier(max_value=45).verify(problem, solution).correct
    verdict = CountdownVerifier(max_value=44).verify(problem, solution)
    assert verdict.outcome is Outcome.WRONG
    assert "45 is over the largest value allowed, 44" in verdict.reason


def test_division_by_zero_is_wrong_not_an_error() -> None:
    assert judge("5 / 0 = 5 | 1 5", numbers=(5, 0, 1), target=5) is Outcome.WRONG


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_line_break_may_end_the_last_step(ending: str) -> None:
    problem = make_problem((3, 4, 7, 12), 21)
    assert CountdownVerifier().verify(problem, f"3 * 7 = 21 | 4 12 21{ending}").correct
    verdict = CountdownVerifier().verify(problem, f"3 * 7 = 22 | 4 12 22{ending}")
    assert verdict.outcome is Outcome.WRONG


def test_numbers_from_the_prompt() -> None:
    problem = Problem(id="a", prompt="3 7 -> 21\n", answer="21")
    assert CountdownVerifier().verify(problem, "3 * 7 = 21 | 21").correct
    with pytest.raises(ValueError, match="problem a: numbers is empty"):
        CountdownVerifier().verify(Problem(id="a", prompt="3 7", answer="21"), "x")
    with pytest.raises(ValueError, match="problem a: answer is 'x'"):
        CountdownVerifier().verify(Problem(id="a", prompt="3 7 -> 21\n", answer="x"), "x")


def test_table() -> None:
    assert VERIFIERS["countdown"]() == CountdownVerifier()


@given(
    seed=st.integers(0, 10**6),
    number=st.integers(0, 60),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_no_number_of_a_solution_can_be_changed(
    seed: int, number: int, data: st.DataObject
) -> None:
    """Any one number replaced by another makes a correct solution incorrect."""
    solution = demonstrate(PROBLEM, random.Random(seed), max_value=60)
    words = solution.replace("\n", " \n ").split(" ")
    places = [i for i, word in enumerate(words) if word.isdigit() and int(word) != number]
    place = data.draw(st.sampled_from(places))
    words[place] = str(number)
    changed = " ".join(words).replace(" \n ", "\n")
    verdict = CountdownVerifier().verify(PROBLEM, changed)
    assert verdict.outcome is Outcome.WRONG
    assert CountdownVerifier().verify(PROBLEM, solution).correct


@given(seed=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_every_proper_beginning_fails(seed: int) -> None:
    solution = demonstrate(PROBLEM, random.Random(seed), max_value=60)
    for end in range(len(solution)):
        assert not CountdownVerifier().verify(PROBLEM, solution[:end]).correct


@given(st.text(alphabet="0123456789 +-*/=|\n"))
def test_any_text_gets_a_verdict(text: str) -> None:
    assert judge(text) in Outcome
