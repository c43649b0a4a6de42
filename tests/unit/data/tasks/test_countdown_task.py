"""Countdown problems, demonstrations and splits."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.progress import listening
from data.tasks.countdown import (
    CountdownConfig,
    CountdownTask,
    apply,
    demonstrate,
    make_problem,
    make_splits,
    multiset_at,
    parse_prompt,
    parse_step,
    reachable_targets,
)
from rewards.verifiers.countdown import CountdownVerifier

CONFIG = CountdownConfig(
    num_numbers=4, min_number=1, max_number=15, max_value=40, min_target=10, max_target=40
)
SMALL = CountdownConfig(
    num_numbers=3, min_number=1, max_number=3, max_value=6, min_target=4, max_target=6
)

PINNED = [
    "countdown-3-5-5-9-to-36",
    "countdown-3-5-12-14-to-15",
    "countdown-4-4-5-6-to-36",
    "countdown-8-14-14-14-to-21",
]


def brute_force(numbers: tuple[int, ...], max_value: int) -> set[int]:
    """Every result of every sequence of steps, written apart from the code under test."""
    results: set[int] = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(number for k, number in enumerate(numbers) if k not in (i, j))
        candidates = [a + b, a - b, a * b] + ([a // b] if a % b == 0 else [])
        for c in candidates:
            if 1 <= c <= max_value:
                results.add(c)
                results |= brute_force((*rest, c), max_value)
    return results


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


def test_multisets_are_a_bijection() -> None:
    expected = set(itertools.combinations_with_replacement(range(1, 16), 4))
    assert len(expected) == CONFIG.num_multisets == 3060
    assert {multiset_at(i, CONFIG) for i in range(3060)} == expected


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


@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(*[st.integers(0, 40)] * 4),
)
@settings(max_examples=25, deadline=None)
def test_splits_are_disjoint_by_multiset(seed: int, sizes: tuple[int, int, int, int]) -> None:
    demonstrations, train, validation, test = sizes
    splits = make_splits(
        CONFIG,
        seed,
        demonstrations=demonstrations,
        train=train,
        validation=validation,
        test=test,
    )
    shown = [demonstration.problem for demonstration in splits.demonstrations]
    assert (len(shown), len(splits.train)) == (demonstrations, train)
    assert (len(splits.validation), len(splits.test)) == (validation, test)
    training, held_out, tested = (
        {tuple(sorted(problem.numbers)) for problem in side}
        for side in ([*shown, *splits.train], splits.validation, splits.test)
    )
    assert not training & held_out
    assert not training & tested
    assert not held_out & tested
    everything = [*shown, *splits.train, *splits.validation, *splits.test]
    assert len({(p.numbers, p.answer) for p in everything}) == len(everything)
    assert len({p.id for p in everything}) == len(everything)
    for problem in everything:
        assert int(problem.answer) not in problem.numbers
        assert 10 <= int(problem.answer) <= 40
        assert all(1 <= number <= 15 for number in problem.numbers)


def test_splits_follow_the_seed_alone() -> None:
    sizes = {"demonstrations": 20, "train": 20, "validation": 10, "test": 10}
    random.seed(1)
    first = make_splits(CONFIG, 3, **sizes)
    state = random.getstate()
    random.seed(2)
    assert CountdownTask(config=CONFIG).make_splits(3, **sizes) == first
    assert make_splits(CONFIG, 4, **sizes) != first
    random.seed(1)
    assert random.getstate() == state


def test_splits_known_problem_is_stable() -> None:
    """Pins the generator: the same seed must give the same problems in every version."""
    splits = make_splits(CONFIG, 17, demonstrations=1, train=1, validation=1, test=1)
    problems = [splits.demonstrations[0].problem, *splits.train, *splits.validation, *splits.test]
    assert [problem.id for problem in problems] == PINNED


def test_too_few_problems_says_how_many() -> None:
    expected = sum(
        len({v for v in brute_force(numbers, 6) if 4 <= v <= 6} - set(numbers))
        for numbers in itertools.combinations_with_replacement(range(1, 4), 3)
    )
    with pytest.raises(ValueError, match=rf"holds {expected} in all 10 multisets"):
        make_splits(SMALL, 0, demonstrations=10, train=10, validation=10, test=10)
    splits = make_splits(SMALL, 0, demonstrations=0, train=expected, validation=0, test=0)
    assert len({problem.id for problem in splits.train}) == expected


def test_large_ranges_are_not_enumerated() -> None:
    config = dataclasses.replace(
        CONFIG, num_numbers=3, max_number=200, max_value=200, max_target=200
    )
    assert config.num_multisets == 1_353_400  # 202 * 201 * 200 / 6
    tracemalloc.start()
    try:
        splits = make_splits(config, 0, demonstrations=0, train=5, validation=5, test=5)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5_000_000  # a list of all multisets takes ten times as much
    assert len({p.group for p in (*splits.train, *splits.validation, *splits.test)}) == 15


def test_drawing_without_a_list_still_finds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = make_splits(SMALL, 0, demonstrations=0, train=5, validation=5, test=2)
    monkeypatch.setattr("data.tasks.countdown.MAX_MULTISETS_LOOKED_AT", 1)
    with pytest.raises(ValueError, match=r"holds (\d+) in all 10 multisets") as error:
        make_splits(SMALL, 0, demonstrations=0, train=1000, validation=0, test=0)
    count = int(str(error.value).split(" holds ")[1].split(" ")[0])
    splits = make_splits(SMALL, 0, demonstrations=0, train=count, validation=0, test=0)
    assert {p.id for p in (*listed.train, *listed.test)} <= {p.id for p in splits.train}
    assert len({p.id for p in splits.train}) == count


def test_negative_size() -> None:
    with pytest.raises(ValueError, match="train is -1"):
        make_splits(CONFIG, 0, demonstrations=0, train=-1, validation=0, test=0)


def test_making_problems_is_reported() -> None:
    config = CountdownConfig(
        num_numbers=3, min_number=1, max_number=9, max_value=30, min_target=10, max_target=30
    )
    last: dict[str, tuple[int, int]] = {}
    with listening(lambda batch: last.update({batch.unit: (batch.done, batch.total)})):
        make_splits(config, 3, demonstrations=5, train=4, validation=3, test=2)
    assert last == {"problems": (14, 14), "demonstrations": (5, 5)}
    with (
        listening(lambda batch: last.update({batch.unit: (batch.done, batch.total)})),
        pytest.raises(ValueError, match="ask for"),
    ):
        make_splits(config, 3, demonstrations=0, train=10**6, validation=0, test=0)
    assert last["multisets of numbers"] == (config.num_multisets, config.num_multisets)
