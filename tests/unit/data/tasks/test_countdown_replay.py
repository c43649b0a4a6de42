"""First errors of Countdown solutions by hand, and against the verifier and brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tasks.countdown import make_problem
from data.tasks.countdown_replay import first_false_step, first_hopeless_step, in_reach
from data.tasks.countdown_tree import can_reach
from rewards.verifiers.countdown import CountdownVerifier

PROBLEM = make_problem((2, 3, 4), 14)  # 3 + 4 = 7, 2 * 7 = 14; also 2 * 3, 4 * 3 + 2, ...
RIGHT = ["3 + 4 = 7 | 2 7", "2 * 7 = 14 | 14"]


def test_what_is_in_reach_by_hand() -> None:
    assert can_reach((3, 6), 18, None) and not can_reach((3, 6), 18, 17)
    assert can_reach((3, 6), 3, None)  # 6 - 3
    assert not can_reach((3, 6), 12, None) and not can_reach((14,), 14, None)
    # (2, 5, 7): 5 * 7 = 35, 35 - 2 = 33 only over 30
    assert can_reach((2, 5, 7), 33, None) and not can_reach((2, 5, 7), 33, 34)


@pytest.mark.parametrize(
    ("lines", "false", "hopeless"),
    [
        (RIGHT, -1, -1),
        (["3 * 4 = 12 | 2 12", "2 + 12 = 14 | 14"], -1, -1),
        (["3 + 4 = 8 | 2 8", "2 * 8 = 14 | 14"], 0, 0),  # the first false one counts
        (["3 + 4 = 7 | 2 7", "2 * 7 = 15 | 15"], 1, 1),
        (["3 + 5 = 8 | 2 8", "2 + 8 = 10 | 10"], 0, 0),  # 5 is not there
        (["3 + 4 = 7 | 7", "2 * 7 = 14 | 14"], 0, 0),  # a number was lost
        (["nonsense"], 0, 0),
        # true steps, but from (1, 2) nothing reaches 14: given up at once, false only at the end
        (["4 - 3 = 1 | 2 1", "2 * 1 = 14 | 14"], 1, 0),
        (["4 - 3 = 1 | 2 1", "2 + 1 = 3 | 3"], -1, 0),
        (["3 + 4 = 7 | 2 7"], -1, 0),  # stops while 14 is in reach
        ([*RIGHT, "14 + 1 = 15 | 15"], 1, 1),  # the step that reaches it had to be the last
        ([*RIGHT, ""], 1, 1),
    ],
)
def test_first_errors_by_hand(lines: list[str], false: int, hopeless: int) -> None:
    assert first_false_step(PROBLEM, lines) == false
    assert first_hopeless_step(PROBLEM, lines, None) == hopeless


def test_prefixes_in_reach_by_hand() -> None:
    assert in_reach(PROBLEM, [], None) and in_reach(PROBLEM, RIGHT[:1], None)
    assert not in_reach(PROBLEM, ["4 - 3 = 1 | 2 1"], None)
    assert not in_reach(PROBLEM, ["3 + 4 = 8 | 2 8"], None)
    assert not in_reach(PROBLEM, RIGHT, None)
    # 7 * 1 would reach 7 again, but a solution ends where it is reached first.
    assert not in_reach(make_problem((1, 3, 4), 7), ["3 + 4 = 7 | 1 7"], None)
    assert not in_reach(make_problem((1, 1, 1), 14), [], None)
    with pytest.raises(ValueError, match=r"'1 1 1 -> 14\\n' has no solution"):
        first_hopeless_step(make_problem((1, 1, 1), 14), ["1 + 1 = 2 | 1 2"], None)


STEPS = st.sampled_from(
    [*RIGHT, "4 - 3 = 1 | 2 1", "2 * 3 = 6 | 4 6", "4 + 6 = 10 | 10", "3 * 4 = 12 | 2 12",
     "12 + 2 = 14 | 14", "7 * 2 = 14 | 14", "7 + 2 = 9 | 9", "", "3 + 4 = 7"]
)  # fmt: skip


@given(st.lists(STEPS, min_size=1, max_size=4))
def test_the_two_truths_and_the_verifier_agree(lines: list[str]) -> None:
    correct = CountdownVerifier().verify(PROBLEM, "\n".join(lines)).correct
    false = first_false_step(PROBLEM, lines)
    hopeless = first_hopeless_step(PROBLEM, lines, None)
    assert correct == (hopeless == -1)
    assert not correct or false == -1
    if false >= 0:
        assert 0 <= hopeless <= false
    # Given up is: in reach before, no longer after.
    if hopeless > 0:
        assert in_reach(PROBLEM, lines[:hopeless], None)
    if 0 <= hopeless < len(lines) - 1:
        assert not in_reach(PROBLEM, lines[: hopeless + 1], None)
