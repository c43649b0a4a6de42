"""Selection that knows what is left of the budget, against the equations written out again."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from data.types import ModelUsage, StopReason, Usage
from search.base import Node, path_to
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.budget import completion, expansion_value, used_share
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.descent import Descent

END = StopReason.END_OF_SOLUTION


def test_completion_is_the_mean_depth_below_against_the_depth_of_an_answer(toys: Any) -> None:
    """By hand. Node 1 has the child 3, which has the child 4. Nodes 2 and 4 end solutions of the
    depths 1 and 3, so an answer's depth is 2. Below and at node 1 the depths are 1, 2 and 3."""
    nodes = toys.tree(
        {"parent": 0}, {"parent": 0, "terminal": END}, {"parent": 1}, {"parent": 3, "terminal": END}
    )
    found = completion(nodes)
    assert {id: found[id] for id in (1, 2, 3, 4)} == {1: 1.0, 2: 0.5, 3: 1.25, 4: 1.5}
    nodes[2].terminal = nodes[4].terminal = None  # the deepest node counts as an answer
    assert completion(nodes)[4] == 1.0 and completion(nodes)[2] == pytest.approx(1 / 3)
    assert completion(toys.tree()) == {0: 0.0}


def test_the_value_of_an_expansion_is_mean_and_variance() -> None:
    assert expansion_value([0.2, 0.6], 0.0, 1.0) == pytest.approx(0.4 + 0.04)
    assert expansion_value([0.2, 0.6], 0.75, 2.0) == pytest.approx(0.4 + 2 * 0.25 * 0.04)
    assert expansion_value([0.2, 0.6], 1.0, 5.0) == pytest.approx(0.4)


def test_the_share_that_is_used_is_that_of_the_tightest_limit() -> None:
    def session(**limits: Any) -> Any:
        usage = Usage(policy=ModelUsage(generated_tokens=30, flops=500.0))
        beside = Usage(policy=ModelUsage(generated_tokens=10, flops=100.0))
        return SimpleNamespace(settings=SearchSettings(**limits), usage=usage, beside=beside)

    assert used_share(session(), 3, 12) == 0.25
    assert used_share(session(max_generated_tokens=40), 3, 12) == 0.5
    assert used_share(session(max_generated_tokens=40, max_flops=500), 3, 12) == 0.8
    assert used_share(session(max_flops=200), 3, 12) == 1.0
    assert used_share(session(max_seconds=1e-9), 3, 12) == 0.25


def random_tree(toys: Any, rng: random.Random) -> list[Node]:
    """A tree of up to 20 nodes, whose inner nodes were expanded and visited."""
    fields: list[dict[str, Any]] = []
    ended: set[int] = set()
    for id in range(1, rng.randint(3, 20)):
        parent = rng.choice([p for p in range(id) if p not in ended])
        visits = rng.randint(1, 5)
        fields.append(
            {"parent": parent, "prior": rng.random(), "visit_count": visits,
             "value_sum": visits * rng.random()}
        )  # fmt: skip
        if rng.random() < 0.2:
            ended.add(id)
            fields[-1] |= {"terminal": END, "settled": True}
    nodes = toys.tree(*fields)
    for node in nodes:
        node.expansions = int(bool(node.children))
    nodes[0].visit_count = 1 + sum(node.visit_count for node in nodes)
    return nodes


def chosen(nodes: list[Node], config: MCTSConfig, used: float) -> int:
    """The leaf, by the equations of search/strategies/mcts/budget.py written out for every node."""

    def below(id: int) -> list[int]:
        return [n.id for n in nodes if n.id == id or id in path_to(nodes, n.id)]

    def depth(id: int) -> int:
        return len(path_to(nodes, id))

    answers = [depth(n.id) for n in nodes if n.finished] or [max(depth(n.id) for n in nodes)]
    answer = max(1.0, sum(answers) / len(answers))

    def value(child: Node) -> float:
        depths = [depth(id) for id in below(child.id)]
        bonus = config.completion_weight * used * sum(depths) / len(depths) / answer
        root = math.sqrt(nodes[child.parent].visit_count) / (1 + child.visit_count)
        explore = config.exploration * (1 - used) * child.prior * root
        return child.value_sum / child.visit_count + bonus + explore

    node = nodes[0]
    while node.children:
        children = [nodes[id] for id in node.children]
        qs = [child.value_sum / child.visit_count for child in children]
        mean = sum(qs) / len(qs)
        variance = sum((q - mean) ** 2 for q in qs) / len(qs)
        again = mean + config.variance_weight * (1 - used) * variance
        steps = [(value(child), child) for child in children if not child.settled]
        best = max(steps, key=lambda pair: pair[0], default=(-math.inf, node))
        if again >= best[0]:
            return node.id
        node = best[1]
    return node.id


def test_descents_are_those_of_the_equations_in_random_trees(toys: Any) -> None:
    rng, leaves, again = random.Random(0), 0, 0
    for _ in range(500):
        nodes = random_tree(toys, rng)
        config = MCTSConfig(
            budget_guided=True, exploration=rng.choice([0.0, 0.3, 1.0]),
            completion_weight=rng.random(), variance_weight=5 * rng.random(),
        )  # fmt: skip
        descent = Descent(nodes, config, 0, "p")
        descent.used = rng.choice([0.0, 0.5, 0.9, 1.0])
        found = descent.leaves(1)
        assert found == [chosen(nodes, config, descent.used)]
        leaves += not nodes[found[0]].children
        again += bool(nodes[found[0]].children)
    assert leaves > 50 and again > 50  # both happen


def test_a_search_that_knows_its_budget_finishes_more_solutions(toys: Any) -> None:
    """Words of four letters and 12 simulations. The reward model says nothing, so plain PUCT stays
    near the root."""

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) >= 4 else {"a": 0.5, "b": 0.3, "c": 0.2}

    def finished(**fields: Any) -> list[int]:
        results = run_searches(
            [toys.problem(str(i), "abca") for i in range(8)],
            bind(MCTSConfig(budgets=(12,), **fields)), engine=toys.Engine(letters),
            scorer=toys.Scorer(lambda text: 0.5), verify=toys.verify,
        )  # fmt: skip
        return [sum(node.finished for node in result.nodes) for result in results]

    plain, guided = finished(widening=0.5), finished(budget_guided=True)
    assert sum(guided) > sum(plain)
    assert min(guided) > 0


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="budget_guided needs puct or uct, and widening 0"):
        MCTSConfig(budget_guided=True, selection="gumbel")
    with pytest.raises(ValueError, match=r"widening is 0.5; budget_guided needs"):
        MCTSConfig(budget_guided=True, widening=0.5)
    with pytest.raises(ValueError, match="this strategy takes one budget"):
        MCTSConfig(budget_guided=True, budgets=(2, 4))
    with pytest.raises(ValueError, match="variance_weight is -1; it must not be negative"):
        MCTSConfig(variance_weight=-1)
