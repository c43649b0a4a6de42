"""The data stage's named slices hold the problems that skip and a number of problems gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.problems import write_problems
from data.slices import Choice, Slice, read_slices, validation_problems, write_slices
from data.types import Problem

SIZES = {
    "train": {"a": 3, "learn": {"b": 2, "deep": {"c": 1, "d": 1}}, "e": 1},
    "validation": {"gate": 2},
}


def test_slices_follow_one_another_in_their_split() -> None:
    slices = read_slices({"train": {"a": 3, "b": 2, "c": 4}, "validation": {"gate": 5}})
    assert slices == {
        "a": Slice(split="train", start=0, size=3),
        "b": Slice(split="train", start=3, size=2),
        "c": Slice(split="train", start=5, size=4),
        "gate": Slice(split="validation", start=0, size=5),
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "must be a mapping of sizes by name"),
        ({"trian": {"a": 1}}, "did you mean 'train'"),
        ({"train": {"a": -1}}, "slice 'a' has size -1; allowed: 0 or more"),
        ({"train": 3}, "slices of train must be a mapping of sizes by name"),
        ({"train": {"a": {"b": 0.5}}}, "slice 'b' has size 0.5"),
        ({"train": {"a": 1}, "test": {"a": 1}}, "two slices have the name 'a'"),
    ],
)
def test_a_wrong_slice_is_named(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_slices(value)


def test_a_slice_may_consist_of_slices() -> None:
    slices = read_slices(SIZES)
    assert {name: (part.start, part.end) for name, part in slices.items()} == {
        "a": (0, 3), "learn": (3, 7), "b": (3, 5), "deep": (5, 7), "c": (5, 6), "d": (6, 7),
        "e": (7, 8), "gate": (0, 2),
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, size in (("train", 10), ("validation", 4)):
        problems = [
            Problem(id=f"{split}-{i}", prompt=f"{split} {i}?", answer="1") for i in range(size)
        ]
        write_problems(tmp_path / f"{split}.jsonl", problems)
    write_slices(tmp_path, read_slices(SIZES), {"train": 10, "validation": 4})
    return tmp_path


def test_a_slice_holds_what_skip_and_a_size_give(folder: Path) -> None:
    by_offset = Choice(split="train", skip=3, size=4).read(folder)
    assert [p.id for p in by_offset] == ["train-3", "train-4", "train-5", "train-6"]
    assert Choice(split="train", name="learn").read(folder) == by_offset
    assert Choice(split="train", name="learn", size=9).read(folder) == by_offset
    assert Choice(split="train", name="learn", size=2).read(folder) == by_offset[:2]
    assert [p.id for p in Choice(split="train", name="gate").read(folder)] == [
        "validation-0", "validation-1",
    ]  # fmt: skip


def test_a_wrong_choice_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no slice 'lern'; did you mean 'learn'"):
        Choice(split="train", name="lern").read(folder)
    with pytest.raises(ValueError, match="slice 'a' and skip 2 are given; give one"):
        Choice(split="train", name="a", skip=2).read(folder)
    with pytest.raises(ValueError, match="slice 'a' is one of train; allowed: slices of val"):
        validation_problems(folder, 0, 2, "a")
    with pytest.raises(ValueError, match="slice 'e' ends at problem 8 of train, which has 7"):
        write_slices(folder, read_slices(SIZES), {"train": 7, "validation": 4})
    with pytest.raises(ValueError, match="has no slice 'a'; it has none"):
        Choice(split="train", name="a").read(folder / "other")
