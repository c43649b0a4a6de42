"""Trees whose proposals are drawn without replacement: nothing twice, exact masses, exhaustion."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest

from data.types import StopReason
from search.base import SearchEnd, SearchResult, path_to, solution_text
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig

SHARES = {"a": 0.5, "b": 0.3, "c": 0.2}
WORDS = {x + y: SHARES[x] * SHARES[y] for x, y in itertools.product(SHARES, SHARES)}


def two_letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 2 else SHARES


def search(toys: Any, names: Any = ("p",), letters: Any = two_letters, **fields: Any) -> Any:
    settings = {
        key: fields.pop(key) for key in ("temperature", "answer", "max_new_tokens") if key in fields
    }
    config = MCTSConfig(**{"priors": "sequence", "without_replacement": True} | fields)
    results = run_searches(
        [toys.problem(name, "ca") for name in names], bind(config), engine=toys.Engine(letters),
        scorer=toys.Scorer(lambda text: 0.9 if text.startswith("c") else 0.4), verify=toys.verify,
        settings=SearchSettings(**settings), final_answer=lambda _, text: text[0],
        max_concurrent=10_000,
    )  # fmt: skip
    return list(results)


def ended(result: SearchResult) -> list[str]:
    return [solution_text(result.nodes, n.id) for n in result.nodes if n.terminal is not None]


@pytest.mark.parametrize("rollouts", [True, False])
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("selection", ["puct", "uct"])
def test_a_tree_draws_all_solutions_once_and_ends(
    toys: Any, rollouts: bool, parallel: int, selection: str
) -> None:
    """A budget of 200 simulations, nine solutions, and widening without an end."""
    for temperature in (1.0, 0.7):
        [result] = search(
            toys, budgets=(200,), expand_by_rollouts=rollouts, widening=1.0, proposals=1,
            parallel_simulations=parallel, selection=selection, stop_mass=0,
            temperature=temperature,
        )  # fmt: skip
        assert sorted(ended(result)) == sorted(WORDS)
        assert result.remaining_mass == pytest.approx(0.0, abs=1e-15)
        assert result.end in (SearchEnd.EXHAUSTED, SearchEnd.SETTLED)
        total = sum(p ** (1 / temperature) for p in WORDS.values())
        for node in result.nodes[1:]:
            path = solution_text(result.nodes, node.id)
            below = [p for word, p in WORDS.items() if word.startswith(path)]
            mass = sum(p ** (1 / temperature) for p in below) / total
            assert node.mass == pytest.approx(mass)
        # The engine drew each solution (or each of the 3 + 9 + 9 steps) once.
        nodes = 9 if rollouts else 3 + 9 + 9
        assert result.usage.policy.sequences == nodes or parallel > 1


def test_a_node_whose_rollouts_all_came_from_above_is_never_expanded(toys: Any) -> None:
    """Six rollouts of the root often draw all that begin with one letter."""
    fields: dict[str, Any] = {"expand_by_rollouts": True, "widening": 1.0, "proposals": 6}
    expanded = 0
    for result in search(toys, range(20), budgets=(50,), stop_mass=0, **fields):
        assert sorted(ended(result)) == sorted(WORDS)
        expanded += sum(node.expanded for node in result.nodes)
        assert all(node.settled for node in result.nodes)
    assert expanded < 20 * 4


@pytest.mark.parametrize("parallel", [1, 4])
def test_without_widening_nothing_is_drawn_twice_either(toys: Any, parallel: int) -> None:
    fields: dict[str, Any] = {"expand_by_rollouts": True, "proposals": 2}
    for result in search(
        toys, range(10), budgets=(50,), parallel_simulations=parallel, **fields
    ):  # fmt: skip
        assert len(set(ended(result))) == len(ended(result))
        assert result.end in (SearchEnd.SETTLED, SearchEnd.EXHAUSTED)
        drawn = math.fsum(WORDS[word] for word in ended(result))
        assert result.remaining_mass == pytest.approx(1 - drawn, abs=1e-12)


def test_priors_are_the_policys_probabilities(toys: Any) -> None:
    [result] = search(toys, budgets=(200,), widening=1.0, proposals=1, stop_mass=0)
    for node in result.nodes[1:]:
        assert node.prior == pytest.approx(SHARES.get(node.text, 1.0))


def test_without_it_the_same_tree_samples_the_same_things_again(toys: Any) -> None:
    fields = {"budgets": (60,), "expand_by_rollouts": True, "widening": 1.0, "proposals": 1}
    [again] = search(toys, without_replacement=False, priors="count", **fields)
    [once] = search(toys, **fields)
    assert again.usage.policy.sequences == 60 > once.usage.policy.sequences
    assert len(ended(again)) <= len(ended(once)) == 9
    assert max(n.proposals for n in again.nodes if n.terminal) > 1
    assert max(n.proposals for n in once.nodes if n.terminal) == 1
    assert again.remaining_mass is None and once.remaining_mass is not None


def test_rollouts_of_one_expansion_are_draws_without_replacement(toys: Any) -> None:
    """P(x, then y) = p(x) p(y) / (1 - p(x)) for two rollouts of the root, by a chi-square test."""
    n, shares = 600, {"a": 0.5, "b": 0.3, "ca": 0.2 * 0.6, "cb": 0.2 * 0.4}

    def letters(text: str) -> dict[str, float]:
        return {"": SHARES, "c": {"a": 0.6, "b": 0.4}}.get(text, {".": 1.0})

    results = search(toys, range(n), letters, budgets=(1,), proposals=2, expand_by_rollouts=True)
    found = Counter(tuple(ended(result)) for result in results)
    expected = {
        (x, y): n * shares[x] * shares[y] / (1 - shares[x])
        for x, y in itertools.permutations(shares, 2)
    }
    assert set(found) <= set(expected)
    chi_square = sum((found[pair] - e) ** 2 / e for pair, e in expected.items())
    assert chi_square < 24.7  # 99 % of a chi-square distribution with 11 degrees of freedom


def test_a_vote_ends_when_the_mass_that_is_left_cannot_change_it(toys: Any) -> None:
    """The answers are first letters, with the masses .5, .3 and .2."""
    fields = {"budgets": (100,), "expand_by_rollouts": True, "widening": 1.0, "proposals": 1}
    results = search(toys, range(20), answer="majority", **fields)
    for result in results:
        assert (result.snapshots[-1].answer or "").startswith("a")
    stopped = [result for result in results if result.end is SearchEnd.SETTLED]
    assert stopped and all((result.remaining_mass or 0) > 0 for result in stopped)
    for more in ({"stop_when_settled": False}, {"use_verifier": True, "max_solutions": 99}):
        for result in search(toys, range(5), answer="majority", **fields, **more):
            assert result.end is SearchEnd.EXHAUSTED and len(ended(result)) == 9


def test_a_rollout_is_cut_off_at_the_limit_of_the_whole_solution(toys: Any) -> None:
    """Rollouts from every node end at the same length, so that none is part of another."""
    [result] = search(
        toys, letters=lambda text: SHARES, budgets=(100,), expand_by_rollouts=True, widening=1.0,
        proposals=1, max_new_tokens=2, stop_mass=0,
    )  # fmt: skip
    assert sorted(ended(result)) == sorted(WORDS)
    assert result.end is SearchEnd.EXHAUSTED
    ends = [node for node in result.nodes if node.terminal is not None]
    assert {node.terminal for node in ends} == {StopReason.LENGTH}
    assert {len(path_to(result.nodes, node.id)) for node in ends} == {2}
    assert math.fsum(node.mass or 0.0 for node in ends) == pytest.approx(1.0)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="priors is 'count', but without_replacement"):
        MCTSConfig(without_replacement=True)
    for name, value in (("distinct_proposals", True), ("leaf_rollouts", 2)):
        fields = {name: value} | ({"rollout_weight": 0.5} if name == "leaf_rollouts" else {})
        with pytest.raises(ValueError, match=f"{name} is {value}; it does not go with"):
            MCTSConfig(without_replacement=True, priors="uniform", **fields)
    with pytest.raises(ValueError, match="stop_mass is 2; it must be in"):
        MCTSConfig(stop_mass=2)
