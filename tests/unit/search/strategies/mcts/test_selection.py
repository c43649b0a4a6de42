"""The selection rules, computed by hand, and the descents that use them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.base import Node
from search.noise import uniform
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.descent import Descent, settle
from search.strategies.mcts.selection import (
    completed_q,
    considered_visits,
    improved_policy,
    interior_value,
    perturbed_logits,
    puct,
    q_value,
    rescaled,
    sigma,
    uct,
)


def make_node(**fields: Any) -> Node:
    return Node(id=1, parent=0, token_ids=(), text="", **fields)


def test_values_by_hand() -> None:
    node = make_node(visit_count=3, value_sum=1.5, value_max=0.9)
    assert q_value(node) == 0.5
    assert q_value(node, max_backup=True) == 0.9
    # without visits: the score, or `first_play` without a score
    assert q_value(make_node(score=0.6), first_play=0.3) == 0.6
    assert q_value(make_node(), first_play=0.3) == 0.3
    # a virtual loss is a visit of value 0: 1.5 / 4
    assert q_value(make_node(visit_count=3, value_sum=1.5, virtual_loss=1)) == 0.375
    # a score of 0.9 that counts for 2 visits: (1.5 + 2 x 0.9) / (3 + 2)
    node = make_node(visit_count=3, value_sum=1.5, score=0.9)
    assert q_value(node, score_weight=2.0) == pytest.approx(0.66)


def test_puct_and_uct_by_hand() -> None:
    node = make_node(prior=0.4, visit_count=3, value_sum=1.5)
    assert puct(node, 0.5, 16, 2.0) == pytest.approx(0.5 + 2 * 0.4 * 4 / 4)
    assert uct(node, 0.5, 16, 2.0) == pytest.approx(0.5 + 2 * math.sqrt(math.log(16) / 3))
    node.virtual_loss = 1
    assert puct(node, 0.375, 16, 1.0) == pytest.approx(0.375 + 0.4 * 4 / 5)
    assert uct(make_node(), 0.0, 16, 0.0) == math.inf


def test_a_descent_by_hand(toys: Any) -> None:
    # root visits 4. child 1: 0.5 + 0.5 x 2 / 3 = 0.8333; child 2: 0.2 + 0.5 x 2 / 2 = 0.7
    nodes = toys.tree(
        {"parent": 0, "prior": 0.5, "visit_count": 2, "value_sum": 1.0, "expansions": 1},
        {"parent": 0, "prior": 0.5, "visit_count": 1, "value_sum": 0.2},
        # under child 1 (2 visits): 3 has 0.1 + 0.9 x 1.414 = 1.37, 4 has 0.9 + 0.1 x 1.414 = 1.04
        {"parent": 1, "prior": 0.9, "score": 0.1},
        {"parent": 1, "prior": 0.1, "score": 0.9},
    )
    nodes[0].visit_count = 4

    def leaf(**fields: Any) -> int | None:
        return Descent(nodes, MCTSConfig(**fields), 0, "p").leaf()

    assert leaf(exploration=1.0) == 3
    assert leaf(exploration=0.0) == 4  # without exploration the higher score wins
    # UCT at the root: 1 has 0.5 + sqrt(ln 4 / 2) = 1.33, 2 has 0.2 + sqrt(ln 4 / 1) = 1.38
    assert leaf(exploration=1.0, selection="uct") == 2
    # and with half the exploration 0.92 against 0.79; below, of two unvisited the better scored
    assert leaf(exploration=0.5, selection="uct") == 4
    nodes[3].settled = True
    assert leaf() == 4
    nodes[4].settled = True
    settle(nodes, 1)
    assert nodes[1].settled and not nodes[0].settled
    assert leaf() == 2
    nodes[2].virtual_loss = 1  # all other leaves are already chosen
    assert leaf() is None


def test_sequential_halving_by_hand() -> None:
    # 4 steps, 16 simulations: 2 phases; 2 visits each of 4, then 4 visits each of 2
    assert considered_visits(4, 16) == [0] * 4 + [1] * 4 + [2, 2, 3, 3, 4, 4, 5, 5]
    # 8 steps, 24 simulations, 3 phases: one of 8; two of 4; four of 2
    assert considered_visits(8, 24) == [0] * 8 + [1] * 4 + [2] * 4 + [3, 3, 4, 4, 5, 5, 6, 6]
    # a schedule may end inside a phase; a single step gets all simulations
    assert considered_visits(8, 5) == [0] * 5
    assert considered_visits(1, 4) == [0, 1, 2, 3]
    # the remaining simulations go on with half of the steps, at least 2
    assert considered_visits(2, 5) == [0, 0, 1, 1, 2]


@given(st.integers(1, 40), st.integers(1, 600))
def test_sequential_halving_is_a_schedule_that_can_be_kept(
    considered: int, simulations: int
) -> None:
    """When the schedule needs a step with v simulations, such a step exists."""
    wanted = considered_visits(considered, simulations)
    assert len(wanted) == simulations
    had = [0] * considered
    for visits in wanted:
        had[had.index(visits)] += 1


def test_improved_policy_by_hand() -> None:
    # sigma(q) = (50 + 3) x 0.1 x q
    assert sigma([0.5, 1.0], 3, 50.0, 0.1) == pytest.approx([2.65, 5.3])
    # softmax of (ln 0.8 + 0, ln 0.2 + ln 8) is (0.8, 1.6) / 2.4
    assert improved_policy([0.8, 0.2], [0.0, math.log(8)]) == pytest.approx([1 / 3, 2 / 3])
    assert interior_value(0.6, 2, 4) == pytest.approx(0.6 - 2 / 5)


def test_small_differences_of_values_weigh_as_much_as_large_ones() -> None:
    """The constants of mctx give the best of a node's values 5 nats more than the worst one."""
    assert rescaled([0.65, 0.6, 0.7]) == pytest.approx([0.5, 0.0, 1.0])
    assert rescaled([0.3, 0.3]) == [0.0, 0.0]
    values = [0.62, 0.60, 0.64, 0.70]
    gaps = sigma(rescaled(values), 0, 50.0, 0.1)
    assert max(gaps) - min(gaps) == pytest.approx(5.0)
    # The best step wins in exp(5) / (exp(5) + exp(2) + exp(1) + 1) = 148.41 / 159.52 of the draws,
    # and without the rescaling in exp(0.5) / (exp(0.5) + exp(0.2) + exp(0.1) + 1) = 1.649 / 4.975.
    priors = [0.25] * 4
    assert improved_policy(priors, gaps)[3] == pytest.approx(0.93035, abs=1e-4)
    plain = sigma(values, 0, 50.0, 0.1)
    assert improved_policy(priors, plain)[3] == pytest.approx(0.3314, abs=1e-4)


def test_completed_values_by_hand() -> None:
    children = [
        make_node(prior=0.5, visit_count=2), make_node(prior=0.25, visit_count=1),
        make_node(prior=0.25),
    ]  # fmt: skip
    # known: (0.5 x 0.6 + 0.25 x 0.9) / 0.75 = 0.7; mixed: (0.3 + 3 x 0.7) / (3 + 1) = 0.6
    assert completed_q(children, [0.6, 0.9, None], 0.3) == pytest.approx([0.6, 0.9, 0.6])
    assert completed_q(children, [None, None, None], 0.3) == [0.3, 0.3, 0.3]
    # A node without a value does not count as 0. The mean of its known children replaces the value.
    assert completed_q(children, [0.6, 0.9, None], None) == pytest.approx([0.6, 0.9, 0.7])


def test_perturbed_logits_by_hand() -> None:
    # The first is Gumbel(0): -ln(-ln u). With u = 1/e that is 0.
    first, second = perturbed_logits([0.75, 0.25], [math.exp(-1), 0.5])
    assert first == pytest.approx(0.0)
    # The second is Gumbel(ln 0.25) below 0: ln 0.25 - ln(0.25 - ln 0.5)
    assert second == pytest.approx(math.log(0.25) - math.log(0.25 + math.log(2)))


def test_perturbed_logits_are_distributed_as_gumbel_top_k() -> None:
    """The noised logits of ordered draws without replacement have the distribution of the sorted
    noised logits of all steps. The test compares their means with those of brute force."""
    p = [0.6, 0.3, 0.1]
    n = 4000
    drawn, brute = [0.0] * 3, [0.0] * 3
    for i in range(n):
        left, order = dict(enumerate(p)), []
        for k in range(3):
            u, total = uniform(1, "draw", i, k) * sum(left.values()), 0.0
            for step, mass in list(left.items()):
                total += mass
                if u <= total or len(left) == 1:
                    order.append(step)
                    del left[step]
                    break
        found = perturbed_logits([p[s] for s in order], [uniform(2, "u", i, k) for k in range(3)])
        assert found[0] > found[1] > found[2]
        noised = sorted(
            (math.log(m) - math.log(-math.log(uniform(3, "g", i, k))) for k, m in enumerate(p)),
            reverse=True,
        )
        drawn = [a + b / n for a, b in zip(drawn, found, strict=True)]
        brute = [a + b / n for a, b in zip(brute, noised, strict=True)]
    # each mean's standard error is at most 1.3 / sqrt(4000) = 0.02
    assert drawn == pytest.approx(brute, abs=0.09)
