"""Edge cases of searches in which an error could stay unnoticed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from data.types import StopReason
from search.base import SearchEnd, SearchResult, solution_text
from search.batcher import run_searches
from search.journal import Journal
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from search.strategies.particles import ParticleConfig
from search.strategies.solutions import SolutionsConfig
from search.trees.training_rows import visit_weighted_paths


def words(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 3 else {"a": 0.4, "b": 0.3, "c": 0.3}


def search(
    toys: Any, config: Any, settings: SearchSettings | None = None, **options: Any
) -> tuple[SearchResult, Any]:
    engine = options.pop("engine", None) or toys.Engine(words)
    options.setdefault("scorer", toys.Scorer(lambda text: 0.5))
    [result] = run_searches(
        [toys.problem("p", "")], bind(config), engine=engine, verify=toys.verify,
        settings=settings or SearchSettings(), **options,
    )  # fmt: skip
    return result, engine


@pytest.mark.parametrize(
    "config",
    [
        MCTSConfig(budgets=(30,), proposals=6),
        MCTSConfig(budgets=(8,), expand_by_rollouts=True),
        BeamConfig(budgets=(3,)),
        ParticleConfig(budgets=(6,)),
        SolutionsConfig(budgets=(6,)),
    ],
)
def test_a_finished_solution_without_a_score_is_an_answer_and_is_never_continued(
    toys: Any, config: Any
) -> None:
    """The reward model gives a number for every path but finished solutions."""

    class NoEnds(toys.Scorer):
        def score_batch(self, items: Any) -> Any:
            from dataclasses import replace

            results = super().score_batch(items)
            return [
                replace(result, scores=(*result.scores[:-1], math.nan))
                if request.sequence[-1] == 0
                else result
                for result, (_, request) in zip(results, items, strict=True)
            ]

    result, engine = search(toys, config, scorer=NoEnds(lambda text: 0.5))
    assert not any(0 in r.prefix for batch in engine.batches for _, r in batch)
    finished = [n for n in result.nodes if n.terminal is StopReason.END_OF_SOLUTION]
    assert finished and all(n.bad_score and n.score is None for n in finished)
    assert not any(node.children for node in finished)
    assert result.terminals["bad_score"] == len(finished)
    assert not result.snapshots[-1].truncated and result.snapshots[-1].answer is not None


def test_self_consistency_is_that_of_the_candidates_of_its_own_time(toys: Any) -> None:
    settings = SearchSettings(guidance="self_consistency")
    for seed in range(20):
        engine = toys.Engine(words, seed=seed)
        both, _ = search(toys, SolutionsConfig(budgets=(2, 40)), settings, engine=engine)
        small, _ = search(toys, SolutionsConfig(budgets=(2,)), settings, engine=engine)
        assert both.snapshots[0].answer == small.snapshots[0].answer
        rounds, _ = search(
            toys, SolutionsConfig(budgets=(2, 40), round_size=1), settings, engine=engine
        )
        assert [s.answer for s in rounds.snapshots] == [s.answer for s in both.snapshots]
        texts = [node.text for node in both.nodes[1:]]
        assert texts.count(both.snapshots[1].answer or "") == max(map(texts.count, texts))


def test_a_journals_answer_to_another_question_is_not_used(toys: Any, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    search(toys, MCTSConfig(budgets=(5,), proposals=2), journal=journal)
    journal.close()
    journal = Journal(path)
    other, _ = search(toys, MCTSConfig(budgets=(5,), proposals=3), journal=journal)
    journal.close()
    assert other == search(toys, MCTSConfig(budgets=(5,), proposals=3))[0]
    # The new answer comes after the unused one in the journal, and the journal uses the new one.
    engine = toys.Engine(words)
    again, _ = search(
        toys, MCTSConfig(budgets=(5,), proposals=3), journal=Journal(path), engine=engine
    )
    assert again == other and engine.batches == []


def test_gumbel_considers_no_more_than_it_is_told_to(toys: Any) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"

    def many(text: str) -> dict[str, float]:
        return dict.fromkeys(letters, 1 / 26)

    for considered, budget in ((16, 33), (4, 9), (8, 5)):
        config = MCTSConfig(
            budgets=(budget,),
            selection="gumbel",
            considered_actions=considered,
            distinct_proposals=True,
        )
        result, _ = search(toys, config, engine=toys.Engine(many))
        children = result.nodes[0].children
        assert len(children) <= min(considered, budget - 1)
        visited = [result.nodes[child].simulations for child in children]
        assert sum(visited) == budget - 1
        for node in result.nodes[1:]:
            # Distinct proposals, and not more than wanted.
            assert len(node.children) <= config.proposals


@pytest.mark.parametrize("selection", ["puct", "uct", "gumbel"])
def test_what_has_no_value_is_not_tried_again_and_again(toys: Any, selection: str) -> None:
    """No step below a has a value. With widening, this node could be expanded forever."""
    scorer = toys.Scorer(lambda text: math.nan if len(text) > 1 and text[0] == "a" else 0.5)
    config = MCTSConfig(budgets=(40,), selection=selection, widening=0.5, proposals=6)
    result, _ = search(toys, config, scorer=scorer)
    [a] = [n for n in result.nodes if n.parent == 0 and n.text == "a"]
    assert a.settled and a.expansions == 1
    assert result.snapshots[0].answer and result.snapshots[0].answer[0] != "a"


@pytest.mark.parametrize("seed", range(8))
def test_a_tree_whose_rollouts_have_no_values_is_settled(toys: Any, seed: int) -> None:
    """The value of a step comes from its rollouts alone, and rollouts of words that begin with a
    have no number. The search settles that node with open children. It must see that no other node
    is open."""

    def two(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 2 else {"a": 0.4, "b": 0.6}

    def value(text: str) -> float:
        return math.nan if text.startswith("a") else 0.9 if text.startswith("bb") else 0.8

    config = MCTSConfig(
        budgets=(60,), proposals=8, leaf_rollouts=2, rollout_weight=1.0, exploration=0.0
    )
    engine = toys.Engine(two, seed=seed)
    result, _ = search(toys, config, engine=engine, scorer=toys.Scorer(value))
    assert result.nodes[0].settled and result.end is SearchEnd.SETTLED


def test_a_greedy_completion_is_made_once_and_is_no_part_of_the_limit(toys: Any) -> None:
    def endless(text: str) -> dict[str, float]:
        return {"a": 0.4, "b": 0.3, "c": 0.3}

    settings = SearchSettings(max_generated_tokens=9, max_new_tokens=20, max_depth=30)
    budgets = tuple(range(1, 21))
    many, engine = search(toys, MCTSConfig(budgets=budgets), settings, engine=toys.Engine(endless))
    one, _ = search(toys, MCTSConfig(budgets=(20,)), settings, engine=toys.Engine(endless))
    greedy = [r for batch in engine.batches for _, r in batch if r.temperature == 0]
    assert len({r.prefix for r in greedy}) == len(greedy)
    assert many.snapshots[-1] == one.snapshots[0]
    steps = sum(r.n for batch in engine.batches for _, r in batch if r.temperature > 0)
    assert steps == 12  # the third expansion of 4 was running when the 9 tokens were spent
    assert many.usage.policy.generated_tokens == 12 + 20 * len(greedy)


def test_the_answer_begins_with_the_roots_choice_even_if_it_must_be_completed(toys: Any) -> None:
    """The empty word is finished at once and has a low value. Words that begin with b are long and
    good."""

    def letters(text: str) -> dict[str, float]:
        if not text:
            return {".": 0.5, "b": 0.5}
        return {".": 1.0} if len(text) == 7 else {"x": 0.5, "y": 0.5}

    scorer = toys.Scorer(lambda text: 0.9 if text.startswith("b") else 0.1)
    config = MCTSConfig(budgets=(4,), answer_from_root_choice=True, proposals=8)
    result, _ = search(toys, config, engine=toys.Engine(letters), scorer=scorer)
    assert any(n.terminal is StopReason.END_OF_SOLUTION for n in result.nodes)
    assert result.snapshots[0].answer and result.snapshots[0].answer[0] == "b"
    assert result.snapshots[0].answer_node is None and not result.snapshots[0].truncated


def test_a_rollout_cut_off_at_a_steps_end_is_no_end_for_others(toys: Any) -> None:
    def long(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 8 else {"a": 0.6, "b": 0.4}

    settings = SearchSettings(max_new_tokens=4, max_depth=20)
    config = MCTSConfig(budgets=(40,), expand_by_rollouts=True, widening=1.0, exploration=3.0)
    result, _ = search(toys, config, settings, engine=toys.Engine(long))
    cut = [n for n in result.nodes if n.terminal is StopReason.LENGTH]
    assert cut and not any(node.children for node in cut)
    assert all(node.score == 0.0 for node in cut)
    for node in result.nodes[1:]:
        if node.terminal is None:
            assert node.score in (None, 0.5)


def test_trees_of_steps_give_rows_weighted_by_visits(toys: Any) -> None:
    """The end of a solution is judged once and never visited again. This counts as one visit."""
    result, _ = search(toys, MCTSConfig(budgets=(60,), proposals=6))
    rows = list(visit_weighted_paths([result]))
    finished = {
        solution_text(result.nodes, n.id)
        for n in result.nodes
        if n.terminal is StopReason.END_OF_SOLUTION
    }
    assert {row.completion for row in rows} == finished
    assert 0 < sum(row.weight for row in rows) <= 1 + 1e-9
