"""Rules that hold for every strategy: accounting, replay, independence, budgets, bad input."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from data.types import Outcome, Problem, StopReason, Usage, Verdict
from rewards.models.prm import process_reward_model
from search.base import SearchEnd, SearchResult, path_to, solution_ids, solution_text
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.journal import Journal
from search.scorer import RewardScorer
from search.settings import GUIDANCES, SearchSettings
from search.strategies.beam import BeamConfig, DVTSConfig
from search.strategies.by_name import STRATEGIES, bind, entry
from search.strategies.look import LookConfig
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import MAX_DRAWS
from search.strategies.particles import ParticleConfig
from search.strategies.revision import RevisionConfig
from search.strategies.routed import RoutedConfig
from search.strategies.solutions import SolutionsConfig
from search.strategies.thinking import ThinkingConfig
from search.strategies.without_replacement import WithoutReplacementConfig
from search.trees.files import append_trees, read_trees

ALL = {
    "solutions": SolutionsConfig(budgets=(2, 6), round_size=4),
    "without replacement": WithoutReplacementConfig(budgets=(2, 6), round_size=2),
    "beam": BeamConfig(budgets=(2,), expansions=3),
    "lookahead": BeamConfig(budgets=(2,), expansions=2, lookahead=2),
    "dvts": DVTSConfig(budgets=(6,), expansions=3),
    "puct": MCTSConfig(budgets=(3, 9), proposals=3),
    "uct, rollouts, widening": MCTSConfig(
        budgets=(9,), selection="uct", expand_by_rollouts=True, widening=0.5, proposals=2
    ),
    "gumbel": MCTSConfig(
        budgets=(9,), selection="gumbel", considered_actions=4, answer_from_root_choice=True
    ),
    "gumbel, rollouts": MCTSConfig(
        budgets=(9,), selection="gumbel", considered_actions=3, proposals=1,
        expand_by_rollouts=True, widening=1.0,
    ),
    "without replacement, own values, a mix": MCTSConfig(
        budgets=(9,), distinct_proposals=True, priors="sequence", leaf_value="own", leaf_rollouts=2,
        rollout_weight=0.5, parallel_simulations=2,
    ),
    "puct, rollouts never twice": MCTSConfig(
        budgets=(3, 9), expand_by_rollouts=True, widening=0.7, proposals=2, priors="sequence",
        without_replacement=True, parallel_simulations=2,
    ),
    "puct, budget guided": MCTSConfig(budgets=(9,), budget_guided=True, proposals=2),
    "gumbel, steps never twice": MCTSConfig(
        budgets=(9,), selection="gumbel", considered_actions=4, priors="sequence", proposals=2,
        without_replacement=True,
    ),
    "rollout values, max": MCTSConfig(
        budgets=(9,), leaf_rollouts=2, rollout_weight=1.0, max_backup=True
    ),
    "particles": ParticleConfig(budgets=(6,)),
    "ratio particles": ParticleConfig(budgets=(6,), weighting="ratio", resample_below=0.5),
    "revision": RevisionConfig(budgets=(4,), chains=2),
    "revision, critique": RevisionConfig(
        budgets=(4,), critique="policy", critique_prompt="{prompt}{attempt}\n", seen_attempts=2
    ),
}  # fmt: skip


def letters(text: str) -> dict[str, float]:
    """Words of four letters. The prompt of a revision holds earlier words, so only its end
    counts."""
    tail = text.rsplit(">", 1)[-1]
    return {".": 1.0} if len(tail) >= 4 else {"a": 0.5, "b": 0.3, "c": 0.2}


def value(text: str) -> float:
    return 0.9 ** sum(a != b for a, b in zip(text, "cbac", strict=False))


def search(
    toys: Any, config: Any, settings: SearchSettings | None = None, names: str = "p", **options: Any
) -> list[SearchResult]:
    engine = options.pop("engine", None) or toys.Engine(letters)
    options.setdefault("scorer", toys.Scorer(value))
    problems = [toys.problem(name, "cbac") for name in names]
    results = run_searches(
        problems, bind(config), engine=engine, verify=options.pop("verify", toys.verify),
        settings=settings or SearchSettings(), **options,
    )  # fmt: skip
    found = {result.problem.id: result for result in results}
    return [found[name] for name in names]


def _truth_is_hidden(problem: Problem, solution: str) -> Verdict:
    raise AssertionError("a search asked for the truth")


def test_every_strategy_of_the_dict_is_tested_here() -> None:
    # The strategy thinking counts tokens of thought, not solutions: see test_thinking.py. A routed
    # search runs one of these strategies, after a look: see test_routed.py.
    elsewhere = {ThinkingConfig, LookConfig, RoutedConfig}
    tested = {type(config) for config in ALL.values()} | elsewhere
    assert tested == {known.config for known in STRATEGIES.values()}
    with pytest.raises(ValueError, match=r"strategy is 'beem'; allowed: solutions, without_repl"):
        entry("beem")


@pytest.mark.parametrize("name", ALL)
def test_usage_is_that_of_all_calls_and_of_all_nodes(toys: Any, name: str) -> None:
    engine = toys.Engine(letters)
    [result] = search(toys, ALL[name], engine=engine)
    asked = [request for batch in engine.batches for _, request in batch]
    assert result.usage.policy.sequences == sum(request.n for request in asked)
    assert sum((node.usage for node in result.nodes), Usage()) == result.usage
    assert result.usage.policy.generated_tokens > 0
    for snapshot in result.snapshots:
        assert snapshot.usage.policy.generated_tokens <= result.usage.policy.generated_tokens


@pytest.mark.parametrize("name", ALL)
def test_every_path_is_what_its_steps_are(toys: Any, name: str) -> None:
    [result] = search(toys, ALL[name])
    nodes = result.nodes
    for node in nodes[1:]:
        assert solution_text(nodes, node.id) == solution_text(nodes, node.parent) + node.text
        assert solution_ids(nodes, node.id) == solution_ids(nodes, node.parent) + node.token_ids
        assert node.parent < node.id
        if node.terminal is StopReason.END_OF_SOLUTION:
            assert node.token_ids[-1] == 0 and not node.children
        probability = math.exp(sum(nodes[step].logprob for step in path_to(nodes, node.id)))
        if not isinstance(ALL[name], RevisionConfig):
            path = solution_text(nodes, node.id)
            expected = math.prod(letters(path[:i])[letter] for i, letter in enumerate(path))
            assert probability == pytest.approx(expected)
    for snapshot in result.snapshots:
        assert snapshot.answer is not None and len(snapshot.answer) == 4


@pytest.mark.parametrize("name", ALL)
def test_the_company_changes_nothing(toys: Any, name: str) -> None:
    together = search(toys, ALL[name], names="pqrs")
    assert search(toys, ALL[name], names="pqrs", max_concurrent=1) == together
    assert search(toys, ALL[name], names="srqp", max_concurrent=2) == together[::-1]
    assert search(toys, ALL[name], names="r") == [together[2]]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ALL)
def test_a_killed_search_goes_on_in_the_middle(toys: Any, name: str, tmp_path: Path) -> None:
    whole = search(toys, ALL[name], names="pq")
    calls = 0

    class Dying(toys.Scorer):
        def score_batch(self, items: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise Killed
            return super().score_batch(items)

    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    try:
        search(toys, ALL[name], names="pq", scorer=Dying(value), journal=journal)
    except Killed:
        journal.close()
        engine = toys.Engine(letters)
        journal = Journal(path)
        again = search(toys, ALL[name], names="pq", engine=engine, journal=journal)
        assert again == whole
        asked = sum(request.n for batch in engine.batches for _, request in batch)
        assert asked < sum(result.usage.policy.sequences for result in whole)
    else:
        assert calls < 2  # a strategy that requests scores once


@pytest.mark.parametrize("name", ALL)
def test_trees_survive_the_disk(toys: Any, name: str, tmp_path: Path) -> None:
    results = search(toys, ALL[name], names="pq")
    path = tmp_path / "trees.jsonl"
    append_trees(path, results, "toy")
    for before, after in zip(results, read_trees(path), strict=True):
        for node in [*before.nodes, *after.nodes]:
            node.settled = False  # used only during the search
        assert after == before


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("limit", ["max_generated_tokens", "max_flops", "max_seconds"])
def test_a_spent_limit_ends_a_search_that_still_answers(toys: Any, name: str, limit: str) -> None:
    class Costly(toys.Engine):
        def sample_usage(self, prefix_length: int, lengths: Any) -> Any:
            from dataclasses import replace

            usage = super().sample_usage(prefix_length, lengths)
            return replace(usage, flops=float(usage.generated_tokens))

    whole = search(toys, ALL[name], engine=Costly(letters))[0]
    limits: dict[str, Any] = {"max_seconds": 1e-9} if limit == "max_seconds" else {limit: 5}
    result_engine = Costly(letters)
    [result] = search(toys, ALL[name], SearchSettings(**limits), engine=result_engine)
    ends = {
        "max_generated_tokens": SearchEnd.TOKENS,
        "max_flops": SearchEnd.FLOPS,
        "max_seconds": SearchEnd.DEADLINE,
    }
    assert result.end is ends[limit]
    assert result.snapshots[-1].answer is not None
    spent = result.usage.policy.generated_tokens
    assert spent < whole.usage.policy.generated_tokens
    # The batch that was running at the limit, and one greedy completion of at most 5 tokens
    # if no solution was finished.
    round_ = max(
        sum(request.n * (1 if request.stop_at_step else 5) for _, request in batch)
        for batch in result_engine.batches
    )
    in_flight = round_ * (1 + getattr(ALL[name], "lookahead", 0))
    # Samples until enough are distinct belong to one expansion.
    if isinstance(ALL[name], MCTSConfig):
        config = ALL[name]
        draws = MAX_DRAWS * max(config.proposals, config.considered_actions)
        in_flight = max(in_flight, config.parallel_simulations * (draws + 5 * config.leaf_rollouts))
    assert spent <= 4 + in_flight + 5


@pytest.mark.parametrize("name", ALL)
def test_a_good_enough_solution_ends_a_search(toys: Any, name: str) -> None:
    """Each solution of the toy has another value. `stop_score` is the smallest of them."""

    def short(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text.rsplit(">", 1)[-1]) >= 2 else {"a": 0.5, "b": 0.3, "c": 0.2}

    def finished(result: SearchResult) -> list[float]:
        ends = [n for n in result.nodes if n.terminal is StopReason.END_OF_SOLUTION]
        return [node.score for node in ends if node.score is not None]

    [whole] = search(toys, ALL[name], engine=toys.Engine(short))
    enough = min(finished(whole))
    [stopped] = search(
        toys, ALL[name], SearchSettings(stop_score=enough), engine=toys.Engine(short)
    )
    assert stopped.end is SearchEnd.CONFIDENT
    assert max(finished(stopped)) >= enough
    assert stopped.usage.policy.generated_tokens <= whole.usage.policy.generated_tokens
    assert len(finished(stopped)) <= len(finished(whole))
    assert stopped.snapshots[-1].answer is not None
    [never] = search(toys, ALL[name], SearchSettings(stop_score=1.0), engine=toys.Engine(short))
    assert never.snapshots == whole.snapshots or never.end is SearchEnd.CONFIDENT


@pytest.mark.parametrize("name", ALL)
def test_bad_prompts_are_named_outcomes(toys: Any, name: str) -> None:
    problems = [
        Problem(id="empty", prompt="", answer="x"),
        Problem(id="long", prompt="?" * 60, answer="x"),
        toys.problem("good", "cbac"),
    ]
    results = {
        result.problem.id: result
        for result in run_searches(
            problems, bind(ALL[name]), engine=toys.Engine(letters, context_length=50),
            scorer=toys.Scorer(value), verify=toys.verify,
        )
    }  # fmt: skip
    assert results["empty"].end is SearchEnd.EMPTY_PROMPT
    assert results["long"].end is SearchEnd.LONG_PROMPT
    for bad in ("empty", "long"):
        assert results[bad].at(6).answer is None and results[bad].usage == Usage()
    assert results["good"].end not in (SearchEnd.EMPTY_PROMPT, SearchEnd.LONG_PROMPT)
    with pytest.raises(ValueError, match="no answer at budget 7"):
        results["good"].at(7)


@pytest.mark.parametrize("name", ALL)
def test_an_answer_that_never_comes_is_truncated_not_wrong(toys: Any, name: str) -> None:
    def endless(text: str) -> dict[str, float]:
        return {"a": 0.5, "b": 0.3, "c": 0.2}

    settings = SearchSettings(max_depth=4, max_new_tokens=7)
    [result] = search(toys, ALL[name], settings, engine=toys.Engine(endless))
    assert all(snapshot.truncated for snapshot in result.snapshots)
    assert result.terminals and not result.terminals["end_of_solution"]
    # The same with a context that is full before the limits are reached.
    small = toys.Engine(endless, context_length=5)
    [result] = search(toys, ALL[name], settings, engine=small)
    assert all(snapshot.truncated for snapshot in result.snapshots)
    assert set(result.terminals) == {"context"}
    lengths = [len(request.prefix) for batch in small.batches for _, request in batch]
    assert max(lengths) < 5


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.5, 1.5])
def test_a_score_that_is_no_number_is_named_and_never_a_value(
    toys: Any, name: str, bad: float
) -> None:
    """The reward model has no number for one of three first letters."""
    scorer = toys.Scorer(lambda text: bad if text.startswith("b") else value(text))
    results = search(toys, ALL[name], scorer=scorer, names="pqrst")
    for result in results:
        for node in result.nodes[1:]:
            if node.text and solution_text(result.nodes, node.id).startswith("b"):
                cut = node.terminal not in (None, StopReason.END_OF_SOLUTION)
                assert node.score is None or cut
        assert all(s.answer and not s.answer.startswith("b") for s in result.snapshots)
    assert sum(result.terminals["bad_score"] for result in results) > 0
    # Without any score, there is still an answer.
    [result] = search(toys, ALL[name], scorer=toys.Scorer(lambda _: bad))
    assert all(snapshot.answer is not None for snapshot in result.snapshots)
    assert all(node.score in (None, 0.0) for node in result.nodes)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_any_guidance_goes_with_any_strategy(toys: Any, name: str, guidance: str) -> None:
    if guidance == "heuristic":
        pytest.skip("the heuristic is Countdown's: tests/unit/search/test_guidance.py")
    settings = SearchSettings(
        guidance=guidance, question="!", yes="y", no="n", guidance_rollouts=2,
        answer="score",
    )  # fmt: skip
    engine = toys.Engine(letters, choices=lambda text: {"y": value(text[:-1]) / 2, "n": 0.1})
    scorer = toys.Scorer(value) if guidance in ("prm", "outcome") else None
    verify = toys.verify if guidance == "oracle" else _truth_is_hidden
    [result] = search(toys, ALL[name], settings, engine=engine, scorer=scorer, verify=verify)
    assert result.snapshots[-1].answer is not None
    scored = [node.score for node in result.nodes if node.score is not None]
    assert scored and all(0 <= score <= 1 for score in scored)


@pytest.mark.parametrize("name", ALL)
def test_usage_equals_what_went_through_the_models(tiny_policy: Any, name: str) -> None:
    """Hooks on real models count every position. The usage has all of them except padding."""
    model, tokenizer = tiny_policy
    engine = TransformersEngine(model, tokenizer, EngineConfig(seed=3))
    torch.manual_seed(0)
    from transformers import LlamaForTokenClassification

    reward = LlamaForTokenClassification(model.config)
    scorer = RewardScorer(process_reward_model(reward, tokenizer.pad_token_id))
    positions = {"policy": 0, "reward": 0}

    def count(key: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            positions[key] += kwargs["input_ids"].numel()

        return hook

    handles = [
        model.register_forward_pre_hook(count("policy"), with_kwargs=True),
        reward.register_forward_pre_hook(count("reward"), with_kwargs=True),
    ]
    problems = [
        Problem(id=str(i), prompt=text, answer="5")
        for i, text in enumerate(["3 4 7 12 -> 24\n", "1 2 -> 3\n"])
    ]
    results = list(
        run_searches(
            problems, bind(ALL[name]), engine=engine, scorer=scorer,
            verify=lambda problem, text: Verdict(outcome=Outcome.WRONG),
            settings=SearchSettings(max_step_tokens=5, max_new_tokens=12, max_depth=3),
        )
    )  # fmt: skip
    for handle in handles:
        handle.remove()
    usage = sum((result.usage for result in results), Usage())
    assert usage.policy.positions + engine.padding_positions == positions["policy"]
    padding = scorer.reward_model.padding_positions
    assert usage.reward.positions + padding == positions["reward"]
    assert usage.policy.positions > 0


def test_partial_binds_the_config(toys: Any) -> None:
    strategy = bind(ALL["beam"])
    assert isinstance(strategy, partial) and strategy.keywords == {"config": ALL["beam"]}
    with pytest.raises(ValueError, match="no strategy takes a int"):
        bind(3)
