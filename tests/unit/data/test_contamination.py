"""Questions in two splits: exact, nearly the same, and not at all."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.contamination import (
    SHINGLE,
    QuestionIndex,
    bands_and_rows,
    cross_overlaps,
    jaccard,
    normal_words,
    shingles,
)

ROBE = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total?"


def test_by_hand() -> None:
    assert normal_words("A 2,  B! $x-1$") == ("a", "2", "b", "$", "x", "-", "1", "$")
    assert shingles(("a", "b")) == {("a", "b")}
    four = shingles(("a", "b", "c", "d"))
    assert four == {("a", "b", "c"), ("b", "c", "d")}
    assert jaccard(four, shingles(("a", "b", "c", "e"))) == pytest.approx(1 / 3)
    assert jaccard(frozenset(), frozenset()) == 1.0


def test_exact_near_and_far() -> None:
    train = {
        "same": ROBE.upper().replace(".", " "),
        "near": ROBE.replace("2 bolts", "3 bolts"),
        "far": "Tom has 4 apples and eats one of them. How many apples does Tom have left?",
    }
    found = cross_overlaps({"test": {"t": ROBE}, "train": train}, ["test"], 0.6)
    by_id = {overlap.second_id: overlap for overlap in found}
    assert set(by_id) == {"same", "near"}
    assert by_id["same"].exact and by_id["same"].similarity == 1.0
    # 19 words make 17 runs; one changed word changes 3 of them: 14 of 20.
    assert by_id["near"].similarity == pytest.approx(14 / 20)
    assert not by_id["near"].exact
    assert {(o.first, o.first_id, o.second) for o in found} == {("test", "t", "train")}
    assert len(cross_overlaps({"test": {"t": ROBE}, "train": train}, ["test"], 0.8)) == 1


def test_a_sign_makes_another_question() -> None:
    found = cross_overlaps(
        {"test": {"t": "What is 1 + 2 ?"}, "train": {"a": "What is 1 - 2 ?"}}, ["test"], 0.9
    )
    assert found == []


def test_every_planted_near_duplicate_is_found() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(400)]
    train = {str(i): " ".join(rng.choices(words, k=45)) for i in range(500)}
    test: dict[str, str] = {}
    for i in range(0, 500, 5):
        changed = train[str(i)].split()
        changed[rng.randrange(45)] = "other"
        test[f"copy of {i}"] = " ".join(changed)
    found = cross_overlaps({"test": test, "train": train}, ["test"], 0.7)
    assert {o.second_id for o in found} == {str(i) for i in range(0, 500, 5)}
    assert all(o.first_id == f"copy of {o.second_id}" for o in found)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_pairs_right_at_the_threshold_are_found(threshold: float) -> None:
    """Planted: a question's last words are others, as many as the threshold allows."""
    rng = random.Random(1)
    runs = 60
    shared = math.ceil(threshold * runs - 1e-9)
    own = (runs - shared) // 2
    test: dict[str, str] = {}
    train: dict[str, str] = {}
    for i in range(1000):
        first, second = (
            [f"w{rng.getrandbits(40)}" for _ in range(shared + own + SHINGLE - 1)] for _ in "ab"
        )
        second[: shared + SHINGLE - 1] = first[: shared + SHINGLE - 1]
        test[str(i)], train[str(i)] = " ".join(first), " ".join(second)
    measured = jaccard(shingles(tuple(test["0"].split())), shingles(tuple(train["0"].split())))
    assert threshold <= measured <= threshold + 0.02
    found = cross_overlaps({"test": test, "train": train}, ["test"], threshold)
    print(f"{1000 - len(found)} of 1,000 pairs at {threshold} are missed")
    assert len(found) >= 985


def test_bands_of_signatures() -> None:
    assert bands_and_rows(0.7) == (32, 4)
    assert bands_and_rows(1.0) == (8, 16)
    assert bands_and_rows(0.001) == (128, 1)


def test_pairs_are_compared_once_and_training_sets_not_with_each_other() -> None:
    one = {"x": ROBE}
    found = cross_overlaps({"a": one, "b": one, "c": one, "d": one}, ["a", "b"], 0.7)
    assert sorted((o.first, o.second) for o in found) == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")
    ]  # fmt: skip


def test_a_wrong_threshold_is_named() -> None:
    for threshold in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"near_duplicate is {threshold}"):
            QuestionIndex("a", {}, threshold)


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=40), max_size=5))
@settings(max_examples=60, deadline=None)
def test_every_question_is_its_own_duplicate(questions: dict[str, str]) -> None:
    found = cross_overlaps({"a": questions, "b": questions}, ["a"], 0.7)
    assert {o.second_id for o in found if o.exact} == set(questions)
