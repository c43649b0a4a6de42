"""Where steps end in token ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.steps import split_steps, step_ends


@pytest.mark.parametrize(
    ("texts", "ends"),
    [
        ([], []),
        (["7"], [0]),
        (["\n"], [0]),
        (["7", "\n", "8", "<eos>"], [1, 3]),
        (["7", "\n", "8"], [1, 2]),  # truncated
        (["7", "\n"], [1]),
        (["7", "\n", "<eos>"], [1, 2]),
        (["a", ".\n\n", "b", "\n \n", "c"], [1, 3, 4]),
    ],
)
def test_step_ends_by_hand(texts: list[str], ends: list[int]) -> None:
    assert step_ends(texts) == ends


def test_another_delimiter() -> None:
    texts = ["a", "\n", ".\n\n", "b\n\nc", "d"]
    assert step_ends(texts, "\n\n") == [2, 3, 4]
    with pytest.raises(ValueError, match="delimiter"):
        step_ends(texts, "")


def test_split_steps_by_hand() -> None:
    texts = ["7", "\n", "8", "9", "<eos>"]
    assert split_steps([5, 2, 6, 7, 1], texts) == [(5, 2), (6, 7, 1)]
    with pytest.raises(ValueError, match="token_texts has 5 texts"):
        split_steps([5], texts)


@given(st.lists(st.sampled_from(["a", "\n", ".\n\n", "<eos>"])))
def test_steps_join_to_the_whole(texts: list[str]) -> None:
    ids = list(range(len(texts)))
    steps = split_steps(ids, texts)
    assert [token for step in steps for token in step] == ids
    assert all(steps)
    assert [step[-1] for step in steps] == step_ends(texts)
    assert all("\n" not in texts[token] for step in steps for token in step[:-1])
