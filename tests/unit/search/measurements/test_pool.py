"""Pools of samples and given solutions: a score at every step, counts of samples, verdicts."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from data.types import StopReason
from search.base import SearchEnd, solution_text
from search.batcher import run_searches
from search.measurements.scored_solutions import GivenConfig, PoolConfig, sample_pool, score_given
from search.settings import SearchSettings


def coin(text: str) -> dict[str, float]:
    """Two letters, then the end."""
    return {"a": 0.6, "b": 0.4} if len(text) < 2 else {".": 1.0}


def pooled(toys: Any, settings: SearchSettings, **engine: Any) -> Any:
    [result] = run_searches(
        [toys.problem("p", "ab")],
        partial(sample_pool, config=PoolConfig(samples=200)),
        engine=toys.Engine(coin, **engine),
        scorer=toys.Scorer(lambda text: (1 + text.count("b")) / 10 + 0.01 * len(text)),
        verify=toys.verify,
        settings=settings,
    )
    return result


def test_a_pool_counts_samples_and_scores_every_step(toys: Any) -> None:
    result = pooled(toys, SearchSettings(max_depth=1))  # `max_depth` limits searches, not the pool
    ends = [node for node in result.nodes if node.terminal]
    # Steps a, b, aa, ab, ba, bb, and after each of the last four the end token as a separate step.
    assert len(result.nodes) == 1 + 2 + 4 + 4
    assert {solution_text(result.nodes, node.id) for node in ends} == {"aa", "ab", "ba", "bb"}
    assert sum(node.proposals for node in ends) == 200
    by_text = {solution_text(result.nodes, n.id): n for n in result.nodes if not n.terminal}
    assert by_text["a"].proposals == by_text["aa"].proposals + by_text["ab"].proposals
    assert by_text["a"].score == pytest.approx(0.11) and by_text["ab"].score == pytest.approx(0.22)
    for node in ends:
        assert node.verdict is not None
        assert node.verdict.correct == (solution_text(result.nodes, node.id) == "ab")
    assert result.usage.policy.sequences == 200
    assert result.usage.reward.sequences == 4  # each distinct solution is scored once


def test_what_was_cut_off_is_an_end_without_a_verdict(toys: Any) -> None:
    result = pooled(toys, SearchSettings(max_new_tokens=1))
    ends = [node for node in result.nodes if node.terminal]
    assert {(n.terminal, n.verdict) for n in ends} == {(StopReason.LENGTH, None)}
    assert sum(node.proposals for node in ends) == 200


@pytest.mark.parametrize("wrong", [{"aggregate": "min"}, {"guidance": "random"}])
def test_a_pool_holds_process_rewards_only(toys: Any, wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="they must be 'prm' and 'last'"):
        pooled(toys, SearchSettings(**wrong))  # pyright: ignore[reportArgumentType]


def test_given_steps_are_scored_at_their_last_tokens(toys: Any) -> None:
    problems = [toys.problem("p", ""), toys.problem("q", "")]
    results = run_searches(
        problems,
        partial(score_given, config=GivenConfig(steps={"p": ("x", "yy"), "q": ("z" * 20,)})),
        engine=toys.Engine(coin, context_length=12),
        scorer=toys.Scorer(lambda text: len(text) / 100),
        verify=toys.verify,
    )
    found = {result.problem.id: result for result in results}
    short, long = found["p"], found["q"]
    # "x\n", then "yy" with the end token, which the toy's text leaves out
    assert [node.score for node in short.nodes] == [None, 0.02, 0.04]
    assert [node.token_ids for node in short.nodes[1:]] == [(120, 10), (121, 121, 0)]
    assert short.nodes[2].terminal is StopReason.END_OF_SOLUTION
    assert short.usage.reward.sequences == 1 and short.usage.policy.sequences == 0
    assert (long.end, len(long.nodes)) == (SearchEnd.LONG_PROMPT, 1)
