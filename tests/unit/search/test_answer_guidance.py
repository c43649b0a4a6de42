"""A tree that grows by one guidance and answers by another: the control of a guided search."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from search.base import SearchResult, solution_text
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.strategies.solutions import SolutionsConfig, search_solutions
from trainer.evaluation.controls import random_tree


def letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 3 else {"a": 0.4, "b": 0.3, "c": 0.3}


def value(text: str) -> float:
    return (1 + 5 * sum(ord(letter) * 7**i for i, letter in enumerate(text)) % 89) / 100


def search(toys: Any, strategy: Any, settings: SearchSettings) -> tuple[SearchResult, list[str]]:
    """The search, and the texts that the reward model read."""
    read: list[str] = []

    class Scorer(toys.Scorer):
        def score_batch(self, items: Any) -> Any:
            read.extend("".join(map(chr, request.sequence[2:-1])) for _, request in items)
            return super().score_batch(items)

    [result] = run_searches(
        [toys.problem("p", "")], strategy, engine=toys.Engine(letters, seed=4),
        scorer=Scorer(value), verify=toys.verify, settings=settings,
    )  # fmt: skip
    return result, read


@pytest.mark.parametrize("rollouts", [True, False])
def test_a_random_tree_answers_by_the_reward_model(toys: Any, rollouts: bool) -> None:
    config = MCTSConfig(
        budgets=(4, 12) if rollouts else (20, 40), expand_by_rollouts=rollouts, priors="uniform",
        widening=0.75 if rollouts else 0.0,
    )  # fmt: skip
    settings = random_tree(SearchSettings(guidance="prm"))
    assert (settings.guidance, settings.answer_guidance) == ("random", "prm")
    strategy = partial(search_mcts, config=config)
    result, read = search(toys, strategy, settings)
    same, nothing = search(toys, strategy, replace(settings, answer_guidance=""))
    # The tree is the one of random values alone: its answers have no influence on it.
    assert [(n.text, n.score, n.visit_count) for n in result.nodes] == [
        (n.text, n.score, n.visit_count) for n in same.nodes
    ]
    assert not nothing
    finished = [n.id for n in result.nodes if n.finished]
    texts = {id: solution_text(result.nodes, id) for id in finished}
    # Every finished solution is read once, for the first answer that could be it.
    assert sorted(read) == sorted(texts.values()) and len(set(read)) == len(read) > 3
    best = max(finished, key=lambda id: value(texts[id]))
    assert result.snapshots[-1].answer_node == best != same.snapshots[-1].answer_node
    spent = [snapshot.usage.reward.sequences for snapshot in result.snapshots]
    assert 0 < spent[0] < spent[1] == len(read) == result.usage.reward.sequences


def test_the_control_of_votes_is_a_vote() -> None:
    control = random_tree(SearchSettings(guidance="self_consistency"))
    assert (control.guidance, control.answer, control.answer_guidance) == ("random", "majority", "")


def test_votes_of_a_tree_choose_no_answer() -> None:
    with pytest.raises(ValueError, match="answer_guidance is 'self_consistency'; allowed: "):
        SearchSettings(answer_guidance="self_consistency")


def test_samples_ask_the_answers_guidance_alone(toys: Any) -> None:
    """Where values only choose an answer, `answer_guidance` is as good as `guidance`."""
    strategy = partial(search_solutions, config=SolutionsConfig(budgets=(2, 5)))
    by_answer = SearchSettings(answer_guidance="prm", guidance="self_consistency")
    result, read = search(toys, strategy, by_answer)
    assert (result, read) == search(toys, strategy, SearchSettings(guidance="prm"))
    assert len(read) == len({node.text for node in result.nodes[1:]}) > 1
