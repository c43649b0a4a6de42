"""Rewards on text, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.text_rewards import (
    TEXT_REWARDS,
    check_length,
    cosine_length_reward,
    format_reward,
    length_factor,
    repetition_penalties,
    repetition_penalty,
)


@pytest.mark.parametrize(
    ("solution", "reward"),
    [
        ("<think>a</think><answer>5</answer>", 1.0),
        ("\n<think>\na\n</think>\n<answer> 5 </answer>\n", 1.0),
        ("<think>a</think><answer>5</answer> so 5", 0.0),
        ("so <think>a</think><answer>5</answer>", 0.0),
        ("<answer>5</answer><think>a</think>", 0.0),
        ("<think> </think><answer>5</answer>", 0.0),
        ("<think>a</think><answer></answer>", 0.0),
        ("<think>a<think>b</think><answer>5</answer>", 0.0),
        ("<think>a</think><answer>5</answer><answer>6</answer>", 0.0),
        ("<think>a</think>5", 0.0),
        ("", 0.0),
    ],
)
def test_format(solution: str, reward: float) -> None:
    assert format_reward(solution) == reward


def test_cosine_by_hand() -> None:
    # correct: 2 at length 0, 1.5 half way, near 1 at the end; wrong: -10, -5, near 0
    assert cosine_length_reward(0, 100, correct=True) == 2.0
    assert cosine_length_reward(50, 100, correct=True) == pytest.approx(1.5)
    assert cosine_length_reward(25, 100, correct=True) == pytest.approx(1.5 + 0.5 * 2**-0.5)
    assert cosine_length_reward(99, 100, correct=True) == pytest.approx(1.000246719, abs=1e-8)
    assert cosine_length_reward(0, 100, correct=False) == -10.0
    assert cosine_length_reward(50, 100, correct=False) == pytest.approx(-5.0)
    assert cosine_length_reward(100, 100, correct=True) == -10.0
    with pytest.raises(ValueError, match="num_tokens is -1"):
        cosine_length_reward(-1, 10, correct=True)
    with pytest.raises(ValueError, match="max_tokens is 0"):
        cosine_length_reward(0, 0, correct=True)


@given(st.integers(0, 998))
def test_cosine_falls_where_correct_and_rises_where_wrong(tokens: int) -> None:
    right = [cosine_length_reward(t, 1000, correct=True) for t in (tokens, tokens + 1)]
    wrong = [cosine_length_reward(t, 1000, correct=False) for t in (tokens, tokens + 1)]
    assert right[0] > right[1] >= 1.0 and wrong[0] < wrong[1] <= 0.0


def test_dense_repetition_by_hand() -> None:
    assert repetition_penalties([1, 2, 3, 1, 2, 4], ngram=2, penalty=-1.0) == [0, 0, 0, -1, -1, 0]
    # overlapping repeats are penalised once a token
    assert repetition_penalties([1, 1, 1, 1], ngram=2, penalty=-1.0) == [0, -1, -1, -1]
    assert repetition_penalties([1, 2], ngram=3) == [0.0, 0.0]
    assert repetition_penalties([]) == []
    for wrong in ({"ngram": 0}, {"penalty": 1.0}):
        with pytest.raises(ValueError):
            repetition_penalties([1], **wrong)


def test_repetition_by_hand() -> None:
    # a b c a b c: 5 pairs, 3 distinct
    assert repetition_penalty("A b c a B c", ngram=2) == pytest.approx(-2 / 5)
    assert repetition_penalty("a b c d", ngram=2) == 0.0
    assert repetition_penalty("a", ngram=2) == 0.0
    assert repetition_penalty("a a a a", ngram=1, max_penalty=-2.0) == pytest.approx(-1.5)
    for wrong in ({"ngram": 0}, {"max_penalty": 1.0}):
        with pytest.raises(ValueError):
            repetition_penalty("a", **wrong)


@given(st.text(), st.integers(1, 5))
def test_any_text_has_its_rewards(text: str, ngram: int) -> None:
    assert format_reward(text) in (0.0, 1.0)
    assert -1.0 <= repetition_penalty(text, ngram=ngram) <= 0.0
    ids = [ord(c) for c in text]
    penalties = repetition_penalties(ids, ngram=ngram)
    assert len(penalties) == len(ids) and set(penalties) <= {0.0, -0.05}


def test_table() -> None:
    assert set(TEXT_REWARDS) == {"format", "cosine_length", "repetition"}


def test_length_factor_by_hand() -> None:
    # 1/2 at the target, 0.01 a token around it, never outside [0, 1]
    assert length_factor(100, 100, 0.01) == 0.5
    assert length_factor(80, 100, 0.01) == pytest.approx(0.7)
    assert length_factor(120, 100, 0.01) == pytest.approx(0.3)
    assert length_factor(10, 100, 0.01) == 1.0
    assert length_factor(151, 100, 0.01) == 0.0


def test_a_length_reward_that_makes_no_sense_is_refused() -> None:
    check_length(0, 0.005)
    with pytest.raises(ValueError, match="length_target is -1"):
        check_length(-1, 0.005)
    for penalty in (0.0, float("nan")):
        with pytest.raises(ValueError, match="length_penalty is"):
            check_length(100, penalty)
