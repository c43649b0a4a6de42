"""The final judge: a second reward model that chooses among the finished solutions of a search."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.types import ModelUsage
from search.base import SearchEnd, SearchResult, solution_text
from search.batcher import run_searches
from search.journal import Journal
from search.live import LiveSearches
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig, DVTSConfig
from search.strategies.by_name import STRATEGIES, bind
from search.strategies.mcts.config import MCTSConfig
from search.strategies.particles import ParticleConfig
from search.strategies.revision import RevisionConfig
from search.strategies.solutions import SolutionsConfig
from search.strategies.without_replacement import WithoutReplacementConfig
from search.trees.files import result_from_json, result_to_json

JUDGED = SearchSettings(answer_guidance="judge")
LIKED = {"a": 0.9, "b": 0.2}  # by the reward model
RIGHT = {"a": 0.3, "b": 0.6}  # by the judge
# Every one finds both solutions, whose texts are one letter and the end.
CONFIGS = (
    MCTSConfig(budgets=(8,), proposals=8, distinct_proposals=True, selection="puct"),
    MCTSConfig(budgets=(24,), expand_by_rollouts=True, proposals=4, widening=0.9),
    BeamConfig(budgets=(12,), expansions=3),
    DVTSConfig(budgets=(36,), expansions=3),
    ParticleConfig(budgets=(24,), resample_below=0.0),
    RevisionConfig(budgets=(24,), chains=24),
    SolutionsConfig(budgets=(24,)),
    WithoutReplacementConfig(budgets=(2,)),
)


def letters(text: str) -> dict[str, float]:
    return {".": 1.0} if text else {"a": 0.6, "b": 0.4}


def value(values: dict[str, float], text: str) -> float:
    return values[text[0]]


class Reader:
    """A reward model that writes down which texts it reads, and at how many positions it is asked
    for a score. A known prefix saves a FLOP per position."""

    shares_trunk = False

    def __init__(self, toys: Any, values: Any, prefix_flops: float = 1.0) -> None:
        self.scorer = toys.Scorer(partial(value, values) if isinstance(values, dict) else values)
        self.texts: list[str] = []
        self.positions: list[int] = []
        self._flops = prefix_flops

    def prefix_flops(self, length: int) -> float:
        return self._flops * length

    def score_batch(self, items: Any) -> Any:
        self.texts += ["".join(map(chr, r.sequence[2:-1])) for _, r in items]
        self.positions += [len(r.step_ends) for _, r in items]
        return self.scorer.score_batch(items)


def search(
    toys: Any, config: Any, settings: SearchSettings, *, scorer: Any = None, judge: Any = None,
    policy: Any = letters, **options: Any,
) -> list[SearchResult]:  # fmt: skip
    return list(
        run_searches(
            [toys.problem(name, "b") for name in options.pop("names", "p")],
            bind(config),
            engine=options.pop("engine", None) or toys.Engine(policy, seed=4),
            scorer=scorer,
            judge=judge,
            verify=toys.verify,
            settings=settings,
            **options,
        )
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_judge_chooses_where_the_reward_model_would_not(
    toys: Any, config: Any, weight: float
) -> None:
    """By score alone, the reward model chooses a (0.9 against 0.2) and the judge b (0.6 against
    0.3). With weight 2, the judge's values are log 0.3 + 2 log 0.6 = log 0.108 for a and
    log 0.6 + 2 log 0.4 = log 0.096 for b, so it chooses a."""
    settings = replace(JUDGED, likelihood_weight=weight)
    scorer, judge = Reader(toys, LIKED), Reader(toys, RIGHT)
    [result] = search(toys, config, settings, scorer=scorer, judge=judge)
    [own] = search(toys, config, replace(settings, answer_guidance=""), scorer=Reader(toys, LIKED))
    assert own.snapshots[-1].answer == "a"
    assert result.snapshots[-1].answer == ("a" if weight else "b")
    assert {*judge.texts} == {"a", "b"} and {*judge.positions} == {1}
    # Only finished solutions, and only the choice: the tree is the one of the reward model.
    if STRATEGIES[result.strategy].values_only_choose:
        texts = [node.text for node in result.nodes]
        assert scorer.texts == [] and texts[: len(own.nodes)] == [node.text for node in own.nodes]
    else:
        assert [(n.text, n.score, n.visit_count) for n in result.nodes] == [
            (n.text, n.score, n.visit_count) for n in own.nodes
        ]
        for node in result.nodes:
            text = solution_text(result.nodes, node.id)
            assert node.answer_score == (RIGHT[text] if node.finished else None)
        read = result_from_json(json.loads(json.dumps(result_to_json(result, "p"))))
        assert [n.answer_score for n in read.nodes] == [n.answer_score for n in result.nodes]


def test_a_vote_is_weighted_by_the_judge(toys: Any) -> None:
    """The votes are the judge's values times the numbers of proposals."""
    for n, seed in ((2, 4), (4, 4), (8, 4), (8, 5), (8, 6)):
        settings = replace(JUDGED, answer="weighted_vote")
        [result] = search(
            toys, SolutionsConfig(budgets=(n,)), settings,
            judge=Reader(toys, RIGHT), engine=toys.Engine(letters, seed=seed),
        )  # fmt: skip
        drawn = Counter(node.text for node in result.nodes[1:])
        votes = {text: RIGHT[text] * count for text, count in drawn.items()}
        assert result.snapshots[-1].answer == max(votes, key=votes.__getitem__)


def test_a_vote_is_settled_by_the_values_that_weigh_it(toys: Any) -> None:
    """All samples are a. Of 30, n settle the vote with 0.3 n > 30 - n: n = 24. Shares of votes, the
    values of self_consistency, would settle it with n > 30 - n: n = 16."""
    settings = replace(JUDGED, guidance="self_consistency", answer="weighted_vote")
    for other, n in ((settings, 24), (replace(settings, answer_guidance=""), 16)):
        [result] = search(
            toys, SolutionsConfig(budgets=(30,), round_size=1), other, judge=Reader(toys, RIGHT),
            policy=lambda text: {".": 1.0} if text else {"a": 1.0},
        )  # fmt: skip
        assert result.end is SearchEnd.SETTLED and len(result.nodes) - 1 == n


@pytest.mark.parametrize(
    "config",
    [
        SolutionsConfig(budgets=(2, 5, 9), round_size=3),
        WithoutReplacementConfig(budgets=(1, 2)),
    ],
    ids=lambda config: type(config).__name__,
)
@pytest.mark.parametrize("answer", ["score", "weighted_vote", "majority"])
def test_samples_by_the_judge_are_samples_with_the_judge_as_reward_model(
    toys: Any, config: Any, answer: str
) -> None:
    """The same choices, at the same cost, and with the same early end."""
    for stop in (0.0, 0.3):
        settings = SearchSettings(guidance="outcome", answer=answer, stop_score=stop)
        other = replace(settings, guidance="prm", answer_guidance="judge")
        as_model = search(toys, config, settings, scorer=Reader(toys, RIGHT))
        assert search(toys, config, other, judge=Reader(toys, RIGHT)) == as_model
        assert (as_model[0].end is SearchEnd.CONFIDENT) == (stop > 0 and answer != "majority")


def test_both_models_are_counted_and_each_has_read_its_own_texts(toys: Any) -> None:
    """The prompt and the solutions have 2 tokens each, so a sequence has 4. The reward model reads
    both in one batch: the second has 2 positions in common with the first. The judge reads them
    later, for one answer, and has read nothing before: again 0 + 2."""
    config = MCTSConfig(
        budgets=(1,), expand_by_rollouts=True, proposals=2, without_replacement=True,
        priors="sequence",
    )  # fmt: skip
    scorer, judge = Reader(toys, LIKED), Reader(toys, RIGHT)
    [result] = search(toys, config, JUDGED, scorer=scorer, judge=judge)
    assert len(scorer.texts) == len(judge.texts) == 2
    spent = result.usage.reward
    assert (spent.sequences, spent.positions) == (4, 16)
    assert (spent.repeated_positions, spent.repeated_flops) == (4, 4.0)
    assert result.snapshots[-1].usage == result.usage
    of_nodes = sum((node.usage.reward for node in result.nodes), ModelUsage())
    assert of_nodes == spent


def test_each_solution_is_judged_once_for_all_budgets(toys: Any) -> None:
    judge = Reader(toys, RIGHT)
    config = MCTSConfig(budgets=(1, 2, 6), expand_by_rollouts=True, proposals=2, widening=0.9)
    [result] = search(toys, config, JUDGED, scorer=Reader(toys, LIKED), judge=judge)
    assert len(judge.texts) == len({*judge.texts}) == 2
    costs = [snapshot.usage.reward.sequences for snapshot in result.snapshots]
    assert costs == sorted(costs)


def test_an_answer_without_scores_needs_no_judge(toys: Any) -> None:
    config = MCTSConfig(budgets=(6,), expand_by_rollouts=True, proposals=2, widening=0.9)
    judge = Reader(toys, RIGHT)
    settings = replace(JUDGED, answer="majority")
    [result] = search(toys, config, settings, scorer=Reader(toys, LIKED), judge=judge)
    assert judge.texts == [] and result.snapshots[-1].answer == "a"


@pytest.mark.parametrize("stop", [0.9, 0.95])
def test_a_tree_stops_by_the_value_of_its_guidance(toys: Any, stop: float) -> None:
    """The judge likes everything, but is asked only for the answer."""
    config = MCTSConfig(budgets=(9,), expand_by_rollouts=True, proposals=1, widening=0.9)
    settings = replace(JUDGED, stop_score=stop)
    sure = dict.fromkeys("ab", 1.0)
    [result] = search(toys, config, settings, scorer=Reader(toys, LIKED), judge=Reader(toys, sure))
    assert (result.end is SearchEnd.CONFIDENT) == (stop == 0.9)


def test_a_tree_is_not_settled_by_values_that_do_not_choose(toys: Any) -> None:
    """With the first rollout a (log 0.9 + log 0.6 = log 0.54), no other solution can beat it by the
    reward model: only log 0.4 is left. By the judge, b can: it is log 0.9 + log 0.4 = log 0.36
    against log 0.1 + log 0.6 = log 0.06."""
    config = MCTSConfig(
        budgets=(3,), expand_by_rollouts=True, proposals=1, without_replacement=True,
        priors="sequence", widening=0.9,
    )  # fmt: skip
    own = SearchSettings(likelihood_weight=1.0)
    values = {"a": 0.1, "b": 0.9}
    by_model = search(toys, config, own, scorer=Reader(toys, LIKED))[0]
    assert by_model.end is SearchEnd.SETTLED and len(by_model.simulations) == 1
    settings = replace(own, answer_guidance="judge")
    [result] = search(
        toys, config, settings, scorer=Reader(toys, LIKED), judge=Reader(toys, values)
    )
    assert len(result.simulations) > 1 and result.snapshots[-1].answer == "b"


def test_a_bad_value_of_the_judge_is_no_score(toys: Any) -> None:
    for config in (CONFIGS[1], SolutionsConfig(budgets=(24,))):
        judge = Reader(toys, RIGHT | {"b": float("nan")})
        [result] = search(toys, config, JUDGED, scorer=Reader(toys, LIKED), judge=judge)
        assert result.snapshots[-1].answer == "a"


def test_a_search_without_its_judge_is_refused(toys: Any) -> None:
    for config in (CONFIGS[0], SolutionsConfig(budgets=(2,))):
        with pytest.raises(ValueError, match="answer_guidance is 'judge', but this search has no"):
            search(toys, config, JUDGED, scorer=Reader(toys, LIKED))
    with pytest.raises(ValueError, match="guidance is 'judge'; allowed: prm,"):
        SearchSettings(guidance="judge")


# ---------------------------------------------------------------- resuming


def deep(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 3 else {"a": 0.5, "b": 0.3, "c": 0.2}


def liked(text: str) -> float:
    return (1 + 5 * sum(map(ord, text)) % 89) / 100


def right(text: str) -> float:
    return (1 + 7 * sum(ord(letter) * 3**i for i, letter in enumerate(text)) % 89) / 100


class Killed(Exception):
    pass


class Dying(Reader):
    """A reward model that ends the process at the batch after `batches` batches."""

    left = 1_000

    def score_batch(self, items: Any) -> Any:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().score_batch(items)


class OneByOne:
    """An engine that answers single requests."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        if name in ("sample_batch", "choice_batch"):
            raise AttributeError(name)
        return getattr(self.engine, name)

    async def sample(self, problem: str, request: Any, order: int) -> Any:
        await asyncio.sleep(0)
        return self.engine.sample_batch([(problem, request)])[0]

    def check_room(self, problem: str, tokens: int) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(("dying", "batches"), [("judge", 0), ("judge", 2), ("scorer", 7)])
def test_a_killed_search_asks_the_judge_no_second_time(
    toys: Any, tmp_path: Path, one_by_one: bool, dying: str, batches: int
) -> None:
    """Killed in the middle of the trees: some problems have a first answer, others have none."""
    config = MCTSConfig(budgets=(2, 5, 9), expand_by_rollouts=True, proposals=2, widening=0.9)

    def run(journal: Journal | None, **left: int) -> tuple[list[str], dict[str, Dying]]:
        models = {"scorer": Dying(toys, liked), "judge": Dying(toys, right)}
        for name, count in left.items():
            models[name].left = count
        engine: Any = toys.Engine(deep, seed=4)
        engine = OneByOne(engine) if one_by_one else engine
        results = search(
            toys, config, JUDGED, names="pqrs", max_concurrent=2, journal=journal, engine=engine,
            **models,
        )  # fmt: skip
        return sorted(map(str, results)), models

    whole, models = run(None)
    path = tmp_path / "journal.jsonl"
    with pytest.raises(Killed):
        run(Journal(path), **{dying: batches})
    resumed, again = run(Journal(path))
    assert resumed == whole
    read = {name: len(model.texts) for name, model in models.items()}
    assert len(again["scorer"].texts) < read["scorer"]
    assert len(again["judge"].texts) < read["judge"] or (dying, batches) == ("judge", 0)


def test_a_live_search_counts_its_judge(toys: Any) -> None:
    config = MCTSConfig(budgets=(6,), expand_by_rollouts=True, proposals=2, widening=0.9)
    judge = Reader(toys, RIGHT)

    async def run() -> tuple[SearchResult, ModelUsage]:
        live = LiveSearches(toys.Engine(letters, seed=4), Reader(toys, LIKED), judge=judge)
        try:
            result = await live.search(
                toys.problem("p", "b"), bind(config), JUDGED, verify=toys.verify,
                final_answer=lambda _, text: text,
            )  # fmt: skip
            return result, live.spending.usage.reward
        finally:
            await live.close()

    result, counted = asyncio.run(run())
    assert result.snapshots[-1].answer == "b" and len(judge.texts) == 2
    assert counted.sequences == result.usage.reward.sequences > 2
