"""Votes of solutions drawn without replacement, and votes that cannot change any more."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest

from data.types import StopReason
from search.answers import choose
from search.base import Node
from search.settings import SearchSettings
from search.votes import count_votes, is_settled, threshold_votes

END = StopReason.END_OF_SOLUTION
# Text, probability and score of each solution. The first letter is the final answer.
SOLUTIONS = [
    ("a1", 0.34, 0.9), ("a2", 0.05, 0.2), ("b1", 0.22, 0.5), ("b2", 0.08, 1.0), ("c1", 0.11, 0.7),
    ("x1", 0.2, 0.0),
]  # fmt: skip


def tree(solutions: Any, *, without_replacement: bool = True) -> list[Node]:
    """The root and these solutions. A solution x is cut off before its end."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for text, probability, score in solutions:
        nodes.append(
            Node(
                id=len(nodes), parent=0, token_ids=(1,), text=text, proposals=1,
                mass=probability if without_replacement else None, score=score,
                logprob=math.log(probability),
                terminal=StopReason.LENGTH if text.startswith("x") else END,
            )
        )  # fmt: skip
    return nodes


def session(settings: SearchSettings) -> Any:
    return SimpleNamespace(settings=settings, final_answer=lambda text: text[0])


def test_the_threshold_gives_votes_that_add_up_to_1() -> None:
    # By hand: with t = 0.25 / ln 2 a solution of probability 0.25 has the vote 0.25 / (1 - 1/2).
    assert threshold_votes([0.25, 0.25]) == pytest.approx([0.5, 0.5])
    assert threshold_votes([0.4]) == pytest.approx([1.0])
    votes = threshold_votes([0.5, 0.2, 0.01])
    assert sum(votes) == pytest.approx(1.0, abs=1e-12)
    assert all(vote >= p for vote, p in zip(votes, [0.5, 0.2, 0.01], strict=True))
    assert votes[0] > votes[1] > votes[2] > 0.01
    # Improbable solutions vote as independent samples do; all solutions, as their probabilities.
    assert threshold_votes([1e-9, 1e-12, 0.0, 3e-300]) == pytest.approx([0.25] * 4, rel=1e-6)
    assert threshold_votes([0.75, 0.25]) == [0.75, 0.25]
    assert threshold_votes([]) == []


def test_truncated_solutions_take_their_share_of_the_votes() -> None:
    nodes = tree(SOLUTIONS)
    votes = count_votes(nodes, {1: "a", 2: "a", 3: "b"})
    assert votes == pytest.approx({"a": 0.39, "b": 0.22})
    assert count_votes(tree(SOLUTIONS, without_replacement=False), {1: "a", 2: "a", 3: "b"}) == {
        "a": 2.0, "b": 1.0,
    }  # fmt: skip


def elected(nodes: list[Node], settings: SearchSettings) -> str:
    ids = [node.id for node in nodes[1:]]
    chosen = choose(
        nodes, ids, answer=settings.answer, likelihood_weight=settings.likelihood_weight,
        final_answer=lambda text: text[0],
    )  # fmt: skip
    return nodes[chosen].text[0]


@pytest.mark.parametrize("answer", ["majority", "weighted_vote", "score"])
def test_a_settled_answer_never_changes_in_any_order_of_draws(answer: str) -> None:
    """All 720 orders in which six solutions can be drawn without replacement."""
    settings = SearchSettings(answer=answer, likelihood_weight=0.5)
    stops = 0
    for order in itertools.permutations(SOLUTIONS):
        settled = ""
        for drawn in range(1, len(order) + 1):
            nodes = tree(order[:drawn])
            now = elected(nodes, settings)
            if settled:
                assert now == settled
            left = 1 - math.fsum(p for _, p, _ in order[:drawn])
            if is_settled(session(settings), nodes, left=max(0.0, left)):
                stops += not settled and drawn < len(order)
                settled = now
        assert settled == elected(tree(SOLUTIONS), settings)
    assert stops > 200  # in many orders, the answer is settled before all are drawn


def test_a_settled_vote_of_independent_samples_never_changes() -> None:
    """All sequences of five samples of three answers, with the scores 0, 0.5 and 1."""
    kinds = [("a1", 0.4, 1.0), ("a2", 0.1, 0.5), ("b1", 0.3, 1.0), ("c1", 0.2, 0.5)]
    for answer in ("majority", "weighted_vote"):
        settings, stops = SearchSettings(answer=answer), 0
        for order in itertools.product(kinds, repeat=5):
            settled = ""
            for drawn in range(1, 6):
                nodes = tree(order[:drawn], without_replacement=False)
                now = elected(nodes, settings)
                assert not settled or now == settled
                if is_settled(session(settings), nodes, left=5 - drawn):
                    stops += not settled and drawn < 5
                    settled = now
        assert stops > 100


def test_rules_without_a_bound_are_never_settled() -> None:
    for settings in (
        SearchSettings(answer="first"),
        SearchSettings(answer="score"),  # any later score may be larger
        SearchSettings(answer="score", likelihood_weight=0.5, temperature=0.7),
    ):
        assert not is_settled(session(settings), tree(SOLUTIONS), left=1e-9)
    independent = tree(SOLUTIONS, without_replacement=False)
    settings = SearchSettings(answer="score", likelihood_weight=0.5)
    assert not is_settled(session(settings), independent, left=1e-9)
    # Vote shares rank answers as their numbers of votes do.
    settings = SearchSettings(answer="weighted_vote", guidance="self_consistency")
    assert is_settled(session(settings), tree(SOLUTIONS[:4]), left=0.08)
    assert not is_settled(session(settings), tree(SOLUTIONS[:4]), left=0.1)
