"""MCTS: numbers computed by hand, and a toy tree with a known optimum."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.types import StopReason
from search.base import Node, solution_ids, solution_text
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.descent import backup, may_widen
from search.strategies.mcts.loop import search_mcts
from search.trees.files import result_from_json, result_to_json


def test_backup_by_hand(toys: Any) -> None:
    nodes = toys.tree({"parent": 0}, {"parent": 1}, {"parent": 0})
    backup(nodes, 2, 0.75)
    backup(nodes, 1, 0.25)
    assert [(n.visit_count, n.value_sum) for n in nodes] == [(2, 1.0), (2, 1.0), (1, 0.75), (0, 0)]


def test_widening_by_hand() -> None:
    # With w = 1/2, the second expansion needs more than 1 simulation, the third more than 4.
    config = MCTSConfig(widening=0.5)
    node = Node(id=0, parent=-1, token_ids=(), text="", expansions=1, visit_count=1)
    assert not may_widen(node, config)
    node.visit_count = 2
    assert may_widen(node, config)
    node.expansions, node.visit_count = 2, 4
    assert not may_widen(node, config)
    node.visit_count = 5
    assert may_widen(node, config)
    assert not may_widen(node, MCTSConfig(widening=0.0))
    # A rollout is a visit, so 8 visits are 2 simulations of 4 rollouts.
    node.expansions, node.visit_count = 1, 4
    assert not may_widen(node, MCTSConfig(widening=0.5, expand_by_rollouts=True, proposals=4))
    node.visit_count = 8
    assert may_widen(node, MCTSConfig(widening=0.5, expand_by_rollouts=True, proposals=4))


CONTROL = SearchSettings(guidance="random", max_depth=6)


def run(
    toys: Any,
    config: MCTSConfig,
    letters: Any,
    value: Any,
    answer: str = "badd",
    settings: SearchSettings | None = None,
) -> Any:
    [result] = run_searches(
        [toys.problem("p", answer)],
        partial(search_mcts, config=config),
        engine=toys.Engine(letters),
        scorer=toys.Scorer(value),
        verify=toys.verify,
        settings=settings or SearchSettings(max_depth=6),
    )
    return result


def four_letters(text: str) -> dict[str, float]:
    """Words of four letters over a..d. The greedy sample and most other samples begin with the
    wrong letter."""
    if len(text) == 4:
        return {".": 1.0}
    return {"a": 0.55, "b": 0.15, "c": 0.15, "d": 0.15}


def closeness(text: str) -> float:
    """A process reward that falls with every wrong letter."""
    return 0.9 ** sum(a != b for a, b in zip(text, "badd", strict=False))


def test_the_known_optimum_is_found(toys: Any) -> None:
    config = MCTSConfig(budgets=(8, 64), proposals=12, exploration=0.5)
    result = run(toys, config, four_letters, closeness)
    assert result.snapshots[-1].answer == "badd"
    # The same search with uniform priors and random values does not find it, 1 word in 256.
    control = MCTSConfig(budgets=(64,), proposals=12, exploration=0.5, priors="uniform")
    found = run(toys, control, four_letters, closeness, settings=CONTROL)
    assert found.snapshots[-1].answer != "badd"


def test_one_expansion_by_rollouts_by_hand(toys: Any) -> None:
    """One letter and the end, 40 rollouts: every count follows from the leaves of the tree."""

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 2 else {"a": 0.7, "b": 0.3}

    def value(text: str) -> float:
        return {"aa": 0.2, "ab": 0.4, "ba": 0.8, "bb": 0.6}.get(text[:2], 0.1)

    config = MCTSConfig(budgets=(1,), proposals=40, expand_by_rollouts=True)
    result = run(toys, config, letters, value, "ba")
    nodes = result.nodes
    ends = [node for node in nodes if node.terminal is StopReason.END_OF_SOLUTION]
    assert {solution_text(nodes, n.id) for n in ends} == {"aa", "ab", "ba", "bb"}
    assert sum(n.visit_count for n in ends) == nodes[0].visit_count == 40
    for node in nodes:
        below = [n for n in ends if solution_text(nodes, n.id).startswith(node.text)]
        if node.parent == 0:
            assert node.visit_count == node.proposals == sum(n.visit_count for n in below)
            assert node.prior == node.visit_count / 40
            assert node.value_sum == pytest.approx(
                sum(n.visit_count * value(solution_text(nodes, n.id)) for n in below)
            )
            assert node.score == 0.1  # scored as an earlier step of the solutions below it
    assert result.snapshots[0].answer == "ba"
    assert result.usage.policy.sequences == 40
    assert result.usage.reward.sequences == 4  # one forward pass per distinct solution


@pytest.mark.parametrize("widening", [0.0, 0.5])
def test_rollouts_find_the_known_optimum(toys: Any, widening: float) -> None:
    # Without widening, four proposals may never contain the right first letter.
    proposals = 4 if widening else 12
    fields = {
        "proposals": proposals, "expand_by_rollouts": True, "exploration": 0.5,
        "widening": widening,
    }  # fmt: skip
    result = run(toys, MCTSConfig(budgets=(64,), **fields), four_letters, closeness)
    assert result.snapshots[-1].answer == "badd"
    control = MCTSConfig(budgets=(64,), priors="uniform", **fields)
    found = run(toys, control, four_letters, closeness, settings=CONTROL)
    assert found.snapshots[-1].answer != "badd"


def test_with_the_verifier_rollouts_ask_the_reward_model_only_for_what_steers(toys: Any) -> None:
    fields = {"budgets": (3,), "proposals": 4, "expand_by_rollouts": True, "use_verifier": True}
    free = run(toys, MCTSConfig(**fields), four_letters, closeness)
    assert free.usage.reward.sequences == 0
    guided = run(toys, MCTSConfig(score_weight=1.0, **fields), four_letters, closeness)
    assert guided.usage.reward.sequences > 0
    for node in guided.nodes[1:]:
        text = solution_text(guided.nodes, node.id)
        expected = float(text == "badd") if node.terminal else closeness(text)
        assert node.score == pytest.approx(expected)


def test_virtual_loss_keeps_parallel_simulations_apart(toys: Any) -> None:
    config = MCTSConfig(budgets=(64,), proposals=12, exploration=0.5, parallel_simulations=4)
    result = run(toys, config, four_letters, closeness)
    assert result.snapshots[-1].answer == "badd"
    assert all(node.virtual_loss == 0 for node in result.nodes)
    assert result.nodes[0].visit_count == sum(node.expanded for node in result.nodes) == 64


def test_a_settled_tree_ends_early_and_answers_the_best(toys: Any) -> None:
    def two_words(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 2 else {"a": 0.5, "b": 0.5}

    config = MCTSConfig(budgets=(4, 100), proposals=16)
    result = run(toys, config, two_words, lambda text: 0.9 if text.startswith("ba") else 0.1, "ba")
    assert result.nodes[0].settled
    assert result.nodes[0].visit_count == 7  # the root, 2 letters, 4 words: each expanded once
    assert result.snapshots[-1].answer == "ba"


def test_verifier_values_terminals_and_ends_the_search(toys: Any) -> None:
    config = MCTSConfig(budgets=(400,), proposals=24, use_verifier=True, max_solutions=1)
    result = run(toys, config, four_letters, lambda _: 0.5)
    correct = [n for n in result.nodes if n.verdict is not None and n.verdict.correct]
    assert [solution_text(result.nodes, n.id) for n in correct] == ["badd"]
    assert correct[0].score == 1.0
    assert result.nodes[0].visit_count < 400


def test_a_budget_too_small_to_finish_is_completed_greedily_and_paid_for(toys: Any) -> None:
    config = MCTSConfig(budgets=(1, 8), proposals=4)
    result = run(toys, config, four_letters, closeness)
    first = result.snapshots[0]
    assert first.answer is not None and len(first.answer) == 4 and not first.truncated
    assert first.usage.policy.generated_tokens == 4 + 4  # 4 proposals, then 3 letters and the end
    # The cost of the completion is not in that of the larger budget, but in the search's total.
    assert result.usage.policy.generated_tokens == (
        result.snapshots[1].usage.policy.generated_tokens + 4
    )


@settings(max_examples=25, deadline=None)
@given(
    weights=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3),
    proposals=st.integers(1, 6),
    parallel=st.integers(1, 3),
    budget=st.integers(1, 20),
    exploration=st.floats(0.0, 3.0),
    rollouts=st.booleans(),
    widening=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_node_is_its_parent_plus_its_step(
    toys: Any,
    weights: list[float],
    proposals: int,
    parallel: int,
    budget: int,
    exploration: float,
    rollouts: bool,
    widening: float,
) -> None:
    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 3 else dict(zip("abc", weights, strict=True))

    config = MCTSConfig(
        budgets=(budget,), proposals=proposals, parallel_simulations=parallel,
        exploration=exploration, expand_by_rollouts=rollouts, widening=widening,
    )  # fmt: skip
    result = run(toys, config, letters, lambda text: (len(text) * 37 % 10) / 10)
    nodes = result.nodes
    for node in nodes[1:]:
        parent = nodes[node.parent]
        assert node.id in parent.children
        assert parent.expanded or rollouts
        assert solution_text(nodes, node.id) == solution_text(nodes, parent.id) + node.text
        assert solution_ids(nodes, node.id) == solution_ids(nodes, parent.id) + node.token_ids
    for node in nodes:
        children = [nodes[child] for child in node.children]
        texts = [child.text for child in children if child.terminal is None]
        assert len(texts) == len(set(texts))
        if children:
            assert sum(child.prior for child in children) == pytest.approx(1.0)
            own = 0 if rollouts else node.expansions
            assert node.visit_count == own + sum(child.visit_count for child in children)
            assert node.value_sum >= sum(child.value_sum for child in children) - 1e-9
        assert all(nodes[child].score is not None for child in node.children)
    expansions = sum(node.expansions for node in nodes)
    assert nodes[0].visit_count == expansions * config.visits_per_expansion
    assert expansions <= budget
    assert widening == 0 or expansions == budget
    # The recorded simulations, played again, give the visits and the values of the whole search.
    played = [Node(id=n.id, parent=n.parent, token_ids=(), text="") for n in nodes]
    for batch in result.simulations:
        for id, value in batch.backups:
            assert id < batch.nodes
            backup(played, id, value)
    assert [(n.visit_count, n.value_sum, n.value_max) for n in played] == [
        (n.visit_count, n.value_sum, n.value_max) for n in nodes
    ]
    sizes = [batch.nodes for batch in result.simulations]
    assert sizes == sorted(sizes) and sizes[-1] <= len(nodes)
    assert [batch.done for batch in result.simulations][-1] == expansions
    again = result_from_json(json.loads(json.dumps(result_to_json(result, ""))))
    assert again.simulations == result.simulations


def test_same_seed_same_tree_whatever_the_company(toys: Any) -> None:
    config = MCTSConfig(budgets=(16,), proposals=4)

    def trees(names: list[str], concurrent: int) -> dict[str, Any]:
        results = run_searches(
            [toys.problem(name, "badd") for name in names],
            partial(search_mcts, config=config),
            engine=toys.Engine(four_letters),
            scorer=toys.Scorer(closeness),
            verify=toys.verify,
            max_concurrent=concurrent,
        )
        return {r.problem.id: (r.nodes, r.snapshots) for r in results}

    names = ["p", "q", "r", "s"]
    together = trees(names, 4)
    assert trees(names, 1) == together
    assert trees(["r"], 1)["r"] == together["r"]
    assert len({str(tree) for tree in together.values()}) == len(names)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"budgets": ()}, "budgets"),
        ({"budgets": (4, 2)}, "ascending"),
        ({"proposals": 0}, "proposals is 0"),
        ({"selection": "ucb"}, "allowed: "),
        ({"selection": "gumbel", "budgets": (2, 4)}, "one budget"),
        ({"rollout_weight": 0.5}, "both must be above 0"),
        ({"parallel_simulations": 0}, "parallel_simulations is 0"),
        ({"widening": 1.5}, "widening is 1.5"),
        ({"score_weight": -1.0}, "score_weight is -1.0"),
        ({"budgets": (0, 2)}, "at least 1"),
    ],
)
def test_bad_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MCTSConfig(**fields)
