"""Countdown problems and demonstrations."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tasks.countdown import (
    apply,
    demonstrate,
    make_problem,
    parse_prompt,
    parse_step,
    reachable_targets,
)
from rewards.verifiers.countdown import CountdownVerifier
from tests.unit.data.tasks.countdown_examples import CONFIG, SMALL, brute_force


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_numbers", 2),
        ("num_numbers", 7),
        ("min_number", 0),
        ("min_number", 16),
        ("max_number", 41),
        ("max_value", 14),
        ("min_target", 0),
        ("min_target", 41),
        ("max_target", 41),
    ],
)
def test_config_rejects(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=r"is \d+; allowed: \d+ to \d+"):
        dataclasses.replace(CONFIG, **{field: value})


def test_apply_by_hand() -> None:
    assert apply(7, "+", 4) == 11
    assert apply(7, "-", 4) == 3
    assert apply(7, "*", 4) == 28
    assert apply(12, "/", 4) == 3
    assert apply(7, "/", 4) is None
    assert apply(4, "-", 4) is None
    assert apply(4, "-", 7) is None
    assert apply(4, "/", 0) is None


def test_parse_step_by_hand() -> None:
    step = parse_step("12 / 4 = 3 | 7 3")
    assert step is not None
    assert (step.left, step.operator, step.right, step.result) == (12, "/", 4, 3)
    assert step.remaining == (7, 3)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "12 / 4 = 3",
        "12 / 4 = 3 |",
        "12 / 4 = 3 | ",
        "12/4=3 | 3",
        " 12 / 4 = 3 | 3",
        "12 / 4 = 3 | 3 ",
        "12 / 4 = 3 | 3\n",
        "12 / 4 = 3 | 3\r",
        "12 / 4 = 3 |  3",
        "12 / 04 = 3 | 3",
        "12 / +4 = 3 | 3",
        "4 - 12 = -8 | -8",
        "12 ÷ 4 = 3 | 3",
        "12 / 4 = \u0663 | \u0663",
        "12 / 4 = \uff13 | 3",
        "12 / 4 = 3.0 | 3",
        "12 / 4 = 1_0 | 3",
        "12 ** 4 = 3 | 3",
        "1" * 19 + " + 1 = 2 | 2",
    ],
)
def test_parse_step_rejects(line: str) -> None:
    assert parse_step(line) is None


def test_prompt_round_trip() -> None:
    problem = make_problem((12, 3, 4, 7), 24)
    assert problem.prompt == "12 3 4 7 -> 24\n"
    assert problem.answer == "24"
    assert problem.group == "3 4 7 12"
    assert parse_prompt(problem.prompt) == ((12, 3, 4, 7), 24)
    assert parse_prompt("12 3 4 7 -> 24") is None
    assert parse_prompt("12 03 4 7 -> 24\n") is None


@pytest.mark.parametrize("numbers", [(1, 1, 1, 1), (2, 3, 7, 15), (5, 5, 8, 10), (1, 13, 14, 15)])
def test_reachable_targets_match_brute_force(numbers: tuple[int, ...]) -> None:
    expected = {v for v in brute_force(numbers, 40) if v >= 10} - set(numbers)
    assert set(reachable_targets(numbers, CONFIG)) == expected


def test_reachable_respects_the_cap_in_between() -> None:
    # By hand for (2, 3, 3), results up to 6: 3 + 3 = 6, 3 + 2 = 5, (3 - 2) + 3 = 4.
    assert reachable_targets((2, 3, 3), SMALL) == [4, 5, 6]
    # (2, 5, 9) reaches 13 only as 9 * 2 - 5, through 18.
    low = dataclasses.replace(SMALL, max_number=9, max_value=17, min_target=13, max_target=13)
    assert reachable_targets((2, 5, 9), low) == []
    high = dataclasses.replace(low, max_value=18)
    assert reachable_targets((2, 5, 9), high) == [13]


def test_the_only_demonstration() -> None:
    # 13 * 3 is the only way to 39 that leaves no result unused; 7 has no part in it.
    problem = make_problem((3, 13, 7), 39)
    solutions = {demonstrate(problem, random.Random(i), max_value=40) for i in range(50)}
    assert solutions == {"13 * 3 = 39 | 7 39"}


def test_remaining_keeps_order_and_ends_with_the_result() -> None:
    problem = make_problem((7, 2, 11), 20)  # 7 + 2 = 9, 11 + 9 in any order, nothing else
    solutions = {demonstrate(problem, random.Random(i), max_value=40) for i in range(100)}
    assert solutions == {
        "7 + 2 = 9 | 11 9\n11 + 9 = 20 | 20",
        "11 + 2 = 13 | 7 13\n13 + 7 = 20 | 20",
        "11 + 7 = 18 | 2 18\n18 + 2 = 20 | 20",
    }


def test_demonstrate_without_a_solution() -> None:
    with pytest.raises(ValueError, match=r"no solution with results up to max_value 40"):
        demonstrate(make_problem((1, 1, 1), 39), random.Random(0), max_value=40)


@given(
    numbers=st.lists(st.integers(1, 20), min_size=3, max_size=5),
    choice=st.integers(0, 10**6),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_demonstrations_verify_and_no_step_is_idle(
    numbers: list[int], choice: int, seed: int
) -> None:
    config = dataclasses.replace(
        CONFIG, num_numbers=len(numbers), max_number=20, min_target=1, max_value=60, max_target=60
    )
    targets = reachable_targets(numbers, config)
    problem = make_problem(numbers, targets[choice % len(targets)])
    solution = demonstrate(problem, random.Random(seed), max_value=60)
    assert solution == demonstrate(problem, random.Random(seed), max_value=60)
    verdict = CountdownVerifier(max_value=60).verify(problem, solution)
    assert verdict.correct, verdict.reason
    # The last state holds one result, the target; a result left idle would still be there.
    steps = [parse_step(line) for line in solution.split("\n")]
    last = steps[-1]
    assert last is not None
    assert len(last.remaining) == len(numbers) - len(steps)
    given_left = list(numbers)
    for number in last.remaining[:-1]:
        given_left.remove(number)
    for step in steps:
        assert step is not None
        assert step.operator in "-/" or step.left >= step.right
