"""Splits of Countdown problems."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.progress import listening
from data.tasks.countdown import CountdownConfig
from data.tasks.countdown_splits import CountdownTask, make_splits, multiset_at
from tests.unit.data.tasks.countdown_examples import CONFIG, SMALL, brute_force

PINNED = [
    "countdown-3-5-5-9-to-36",
    "countdown-3-5-12-14-to-15",
    "countdown-4-4-5-6-to-36",
    "countdown-8-14-14-14-to-21",
]


def test_multisets_are_a_bijection() -> None:
    expected = set(itertools.combinations_with_replacement(range(1, 16), 4))
    assert len(expected) == CONFIG.num_multisets == 3060
    assert {multiset_at(i, CONFIG) for i in range(3060)} == expected


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
    monkeypatch.setattr("data.tasks.countdown_splits.MAX_MULTISETS_LOOKED_AT", 1)
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
