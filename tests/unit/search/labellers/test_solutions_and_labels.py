"""Best-of-N on nested subsets, Monte Carlo labels, the export, and trees on disk."""

from __future__ import annotations

import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.settings import ROOT, read_yaml_mapping
from data.types import StopReason
from search.answers import choose
from search.base import Node, SearchResult, answer_value, solution_text
from search.batcher import run_searches
from search.labellers.monte_carlo import MonteCarloConfig, label_monte_carlo, step_labels
from search.labellers.solutions import VerifiedRollout
from search.measurements.prefix_success import ProbeConfig, probe_prefixes
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.strategies.solutions import SolutionsConfig, search_solutions
from search.trees.files import append_trees, read_trees
from search.trees.training_rows import balance_by_difficulty, verified_solutions


def coin(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 2 else {"a": 0.6, "b": 0.4}


def solve(
    toys: Any,
    config: SolutionsConfig,
    value: Any = None,
    answer: str = "score",
    letters: Any = coin,
) -> SearchResult:
    [result] = run_searches(
        [toys.problem("p", "bb")],
        partial(search_solutions, config=config),
        engine=toys.Engine(coin),
        scorer=toys.Scorer(value) if value else None,
        verify=toys.verify,
        settings=SearchSettings(answer=answer),
    )
    return result


def test_best_of_n_reads_smaller_budgets_from_nested_subsets(toys: Any) -> None:
    scores = {"aa": 0.1, "ab": 0.5, "ba": 0.6, "bb": 0.9}
    config = SolutionsConfig(budgets=(1, 4, 32))
    result = solve(toys, config, lambda text: scores.get(text, 0.0))
    texts = [node.text for node in result.nodes[1:]]
    assert set(texts) == set(scores)
    for snapshot in result.snapshots:
        best = max(texts[: snapshot.budget], key=lambda text: scores[text])
        assert snapshot.answer == best
        assert snapshot.usage.policy.generated_tokens == 3 * snapshot.budget
        # Equal solutions are scored once.
        assert snapshot.usage.reward.sequences == len(set(texts[: snapshot.budget]))
    # A smaller run equals the beginning of the larger run.
    small = solve(toys, SolutionsConfig(budgets=(4,)), lambda text: scores.get(text, 0.0))
    assert [n.text for n in small.nodes[1:]] == texts[:4]
    assert small.snapshots[0].usage == result.snapshots[1].usage


def pick(nodes: list[Node], answer: str, weight: float = 0.0, correct: Any = None) -> int:
    """Call `choose` with all nodes as candidates. Their ids are consecutive."""
    tree = [Node(id=i, parent=-1, token_ids=(), text="") for i in range(nodes[0].id)] + nodes
    return choose(
        tree, [n.id for n in nodes], answer=answer, likelihood_weight=weight,
        final_answer=str, correct=correct,
    )  # fmt: skip


def finished(id: int, text: str, score: float, stop: StopReason) -> Node:
    return Node(id=id, parent=0, token_ids=(), text=text, score=score, terminal=stop)


def test_choice_by_hand() -> None:
    end, cut = StopReason.END_OF_SOLUTION, StopReason.LENGTH
    nodes = [
        finished(1, "x", 0.3, end),
        finished(2, "y", 0.8, end),
        finished(3, "x", 0.8, end),
        finished(4, "z", 0.9, cut),
    ]
    assert pick(nodes, "score") == 2  # a truncated solution loses; the earlier one wins a tie
    assert pick(nodes, "majority") == 1
    assert pick(nodes, "first") == 1
    # x has 0.3 + 0.8 = 1.1 and y has 0.8; the better solution of x is the third
    assert pick(nodes, "weighted_vote") == 3
    assert pick(nodes, "oracle", correct=lambda text: text == "y") == 2
    # Truncated solutions are not solved.
    assert pick(nodes, "oracle", correct=lambda text: text == "z") == 1
    nodes[1].proposals = 3  # three samples gave y and are one node
    assert pick(nodes, "majority") == 2
    assert pick(nodes, "weighted_vote") == 2  # y has 3 x 0.8, and x has 1.1
    nodes[1].score = nodes[2].score = None
    assert pick(nodes, "score") == 1  # a solution without a score comes last
    assert pick(nodes[3:], "score") == 4


def share_chosen_right(weight: float) -> float:
    """The share of 300 problems whose chosen solution is right.

    A problem has 16 solutions of 50 to 400 tokens, each token with a log-probability of about
    -0.2 nats. Right solutions are as likely per token as wrong ones, and 1.3 times as long. The
    reward model gives them 2 logits more, with noise of 0.6.
    """
    draw, right = random.Random(3), 0
    for _ in range(300):
        nodes: list[Node] = []
        for id in range(1, 17):
            correct = draw.random() < 0.4
            length = draw.randint(50, 300) * (1.3 if correct else 1.0)
            logit = (1.0 if correct else -1.0) + draw.gauss(0.0, 0.6)
            text = "right" if correct else "wrong"
            node = finished(id, text, 1 / (1 + math.exp(-logit)), StopReason.END_OF_SOLUTION)
            node.logprob = -length * draw.gauss(0.2, 0.02)
            nodes.append(node)
        right += nodes[pick(nodes, "score", weight) - 1].text == "right"
    return right / 300


def test_the_likelihood_is_not_weighed_where_lengths_differ() -> None:
    """The likelihood is a sum over tokens, so it prefers short solutions whatever they say."""
    recipe = read_yaml_mapping(ROOT / "recipes/gsm8k/stages/evaluate.yaml")  # the Qwen recipes' too
    assert share_chosen_right(float(recipe.get("likelihood_weight", 0.0))) > 0.95
    assert share_chosen_right(0.5) < 0.6


def test_likelihood_in_the_choice_by_hand() -> None:
    # log 0.8 - 0.5 x 4 = -2.223; log 0.6 - 0.5 x 3 = -2.011. The likelier solution wins when the
    # weight is at least log(0.8 / 0.6) / 1 = 0.288.
    end = StopReason.END_OF_SOLUTION
    nodes = [finished(1, "x", 0.8, end), finished(2, "y", 0.6, end)]
    nodes[0].logprob, nodes[1].logprob = -4.0, -3.0
    assert answer_value(0.8, -4.0, 0.5) == pytest.approx(-2.22314355)
    assert pick(nodes, "score") == 1
    assert pick(nodes, "score", 0.28) == 1
    assert pick(nodes, "score", 0.29) == 2
    # A score of 0 is not an error.
    assert answer_value(0.0, 0.0, 0.5) < answer_value(1e-6, -10.0, 0.5)


def test_search_without_a_reward_model_says_so(toys: Any) -> None:
    with pytest.raises(ValueError, match="there is no reward model"):
        solve(toys, SolutionsConfig(budgets=(2,)))


def test_labels_pool_rollouts_in_a_trie_by_hand() -> None:
    a, b, c, d = (1,), (2,), (3,), (4,)
    rollouts = [
        VerifiedRollout(steps=(a, b), origin=0, correct=True),
        VerifiedRollout(steps=(a, c), origin=0, correct=False),
        VerifiedRollout(steps=(d,), origin=0, correct=False),
        # sampled from the prefix (a, c), so it does not count for (a,)
        VerifiedRollout(steps=(a, c, d), origin=2, correct=True),
        VerifiedRollout(steps=(a, c, b), origin=2, correct=False),
    ]
    rows = {
        row.completion_ids: row
        for row in step_labels("p", "?", (9,), rollouts, lambda ids: str(list(ids)))
    }
    assert rows[a, b].labels == (1 / 2, 1.0) and rows[a, b].counts == (2, 1)
    assert rows[d,].labels == (0.0,) and rows[d,].completions == ("[4]",)
    assert rows[a, c].labels == (1 / 2, 1 / 3) and rows[a, c].counts == (2, 3)
    assert rows[a, c, d].labels == (1 / 2, 1 / 3, 1.0)
    # Laplace's rule for 1 of 2: p = 2 / 4, sqrt(p (1 - p) / 2)
    assert rows[a, b].standard_errors[0] == pytest.approx((0.25 / 2) ** 0.5)


def test_labels_approach_the_true_success_rate(toys: Any) -> None:
    labels: list[Any] = []

    async def strategy(session: Any) -> SearchResult:
        config = MonteCarloConfig(solutions=200, rollouts_per_step=400, prefixes=6)
        labels.extend((await label_monte_carlo(session, config)).rows)
        return SearchResult(
            problem=session.problem, strategy="x", nodes=(), snapshots=(), usage=session.usage
        )

    [result] = run_searches(
        [toys.problem("p", "bb")], strategy, engine=toys.Engine(coin), scorer=None,
        verify=toys.verify,
    )  # fmt: skip
    by_text = {"".join(row.completions): row for row in labels}
    assert by_text["bb"].labels[0] == pytest.approx(0.4, abs=0.08)  # P(b) after b
    assert by_text["ab"].labels[0] == 0.0
    assert by_text["bb"].labels[-1] == 1.0
    assert by_text["bb"].counts[0] >= 400
    assert result.usage.policy.sequences == 200 + 6 * 400


def test_export_keeps_distinct_correct_solutions_and_balances(toys: Any) -> None:
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    words = [("bb", 0.4), ("bb", 0.9), ("ab", 0.8), ("aa", 0.7)]
    for i, (word, score) in enumerate(words, start=1):
        node = Node(id=i, parent=0, token_ids=(i, 0), text=word, score=score)
        node.terminal = StopReason.END_OF_SOLUTION
        nodes.append(node)
    nodes.append(Node(id=5, parent=0, token_ids=(5,), text="bb", terminal=StopReason.LENGTH))
    result = SearchResult(
        problem=toys.problem("p", "bb"), strategy="x", nodes=tuple(nodes), snapshots=(),
        usage=solve(toys, SolutionsConfig(), answer="first").usage,
    )  # fmt: skip
    solutions, rate = verified_solutions(result, toys.verify)
    assert solutions == [(1, 0)] and rate == pytest.approx(1 / 3)  # bb, ab, aa are the distinct
    four = [(i,) for i in range(4)]
    assert len(balance_by_difficulty(four, 0.1, 4)) == 4  # hard: ceil(0.9 x 4)
    assert len(balance_by_difficulty(four, 0.6, 4)) == 2  # ceil(0.4 x 4)
    assert len(balance_by_difficulty(four, 1.0, 4)) == 1


def test_trees_survive_the_disk_and_a_torn_last_line(toys: Any, tmp_path: Path) -> None:
    results = list(
        run_searches(
            [toys.problem(name, "bb") for name in "pq"],
            partial(search_mcts, config=MCTSConfig(budgets=(2, 4))),
            engine=toys.Engine(coin),
            scorer=toys.Scorer(lambda text: len(text) / 10),
            verify=toys.verify,
        )
    )
    path = tmp_path / "trees.jsonl"
    assert append_trees(path, results, "toy") == 2
    read = read_trees(path)
    for before, after in zip(results, read, strict=True):
        assert after.snapshots == before.snapshots and after.usage == before.usage
        assert after.problem == before.problem
        for old, new in zip(before.nodes, after.nodes, strict=True):
            assert (old.children, old.prior, old.visit_count, old.value_sum, old.score) == (
                new.children, new.prior, new.visit_count, new.value_sum, new.score,
            )  # fmt: skip
            assert solution_text(before.nodes, old.id) == solution_text(after.nodes, new.id)
    path.write_bytes(path.read_bytes()[:-20])
    assert len(read_trees(path)) == 1
    append_trees(path, results[1:], "toy")
    assert [r.problem.id for r in read_trees(path)] == ["p", "q"]


def test_probe_sets_scores_beside_success_rates(toys: Any) -> None:
    # "bb" is correct, and the policy has P(b) = 0.4 each time: 0.4 from "b", 1 from "bb", else 0.
    [result] = run_searches(
        [toys.problem("p", "bb")],
        partial(probe_prefixes, config=ProbeConfig(solutions=32, prefixes=6, rollouts=400)),
        engine=toys.Engine(coin),
        scorer=toys.Scorer(lambda text: len(text) / 10),
        verify=toys.verify,
    )
    found = {node.text: node for node in result.nodes[1:]}
    assert set(found) == {"a", "b", "aa", "ab", "ba", "bb"}
    assert {text: node.score for text, node in found.items()} == {t: len(t) / 10 for t in found}
    assert {node.visit_count for node in found.values()} == {400}
    rates = {text: node.value_sum / 400 for text, node in found.items()}
    assert rates.pop("b") == pytest.approx(0.4, abs=0.08)
    assert rates == {"a": 0.0, "aa": 0.0, "ab": 0.0, "ba": 0.0, "bb": 1.0}
    assert result.usage.policy.sequences == 32 + 6 * 400
    assert result.usage.reward.sequences == 6


def test_a_probe_does_not_count_truncated_rollouts(toys: Any) -> None:
    [result] = run_searches(
        [toys.problem("p", "bbb")],
        partial(probe_prefixes, config=ProbeConfig(rollouts=50, max_new_tokens=2)),
        engine=toys.Engine(lambda text: {"b": 1.0} if len(text) < 3 else {".": 1.0}),
        scorer=toys.Scorer(lambda text: 0.5),
        verify=toys.verify,
    )
    # Two tokens from "b" give the text of the answer, but not the end of the solution.
    assert [(n.text, n.value_sum) for n in result.nodes[1:]] == [("b", 0.0)]
