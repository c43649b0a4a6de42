"""The whole tree of a small problem counted by hand, and what some paths show of it."""

from __future__ import annotations

from data.tasks.countdown import make_problem
from data.tasks.countdown_tree import legal_moves, nodes_seen, share_seen, tree_size


def test_two_numbers_by_hand() -> None:
    # 6 + 3, 6 - 3, 6 * 3, 6 / 3; none leaves two numbers
    assert [result for result, _ in legal_moves((3, 6), None).values()] == [9, 3, 18, 2]
    assert tree_size((3, 6), 9, None) == 4
    assert tree_size((3, 6), 9, 10) == 3  # 18 is over the cap
    assert tree_size((2, 2), 9, None) == 3  # 4, 4 and 1; 2 - 2 is below 1


def test_three_numbers_by_hand() -> None:
    # From 1 1 2: {1,1} gives 2 (+), 1 (*), 1 (/), never 0; {1,2} gives 3, 1, 2, 2, once.
    # Below: (2,2) has 3 nodes; (1,2) has 4 twice; (1,3) has 4 (3+1, 3-1, 3*1, 3/1); (1,1) has 3;
    # (1,2) has 4 twice.
    assert len(legal_moves((1, 1, 2), None)) == 3 + 4
    assert tree_size((1, 1, 2), 50, None) == 7 + 3 + 4 + 4 + 4 + 3 + 4 + 4
    # A target ends its path: 2 + 1 = 3 and its 4 nodes below are one leaf.
    assert tree_size((1, 1, 2), 3, None) == tree_size((1, 1, 2), 50, None) - 4


def test_what_paths_show() -> None:
    problem = make_problem((1, 1, 2), 50)
    size = tree_size((1, 1, 2), 50, None)
    assert nodes_seen(problem, ["1 + 1 = 2 | 2 2\n2 + 2 = 4 | 4"], None) == 2
    # the same node in another order, and one that differs in its second step
    paths = ["2 + 1 = 3 | 1 3", "1 + 2 = 3 | 1 3\n3 - 1 = 2 | 2", "2 + 1 = 3 | 3 1\n"]
    assert nodes_seen(problem, paths, None) == 2
    assert share_seen(problem, paths, None) == 2 / size
    for illegal in (
        "1 + 1 = 3 | 2 3",  # false
        "1 - 2 = 1 | 1 1",  # order matters
        "1 - 1 = 0 | 2 0",
        "1 + 3 = 4 | 1 4",  # 3 is not there
        "1 + 1 = 2 | 2",  # a number was lost
        "no step",
        "",
    ):
        assert nodes_seen(problem, [illegal], None) == 0
    assert nodes_seen(problem, ["1 + 1 = 2 | 2 2\nno step\n2 + 2 = 4 | 4"], None) == 1
    ended = make_problem((1, 1, 2), 3)
    assert nodes_seen(ended, ["2 + 1 = 3 | 1 3\n3 + 1 = 4 | 4"], None) == 1
