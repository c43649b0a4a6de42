"""Looks and routed searches: features by hand, and costs that are those of the look and the arm."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data.types import StopReason, Usage
from search.base import Node, SearchEnd
from search.batcher import run_searches
from search.journal import Journal
from search.router import Router, RouterArm, RouterBudget, read_router
from search.settings import SearchSettings
from search.strategies.by_name import bind, strategy_name
from search.strategies.look import FEATURES, LookConfig, continues_look, features_of
from search.strategies.mcts.config import MCTSConfig
from search.strategies.routed import RoutedConfig
from search.strategies.solutions import SolutionsConfig
from search.strategies.without_replacement import WithoutReplacementConfig

NAMES = "pqrstuvw"
LOOK = LookConfig(budgets=(2,))
SETTINGS = SearchSettings()
ZEROS = (0.0,) * len(FEATURES)


def letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) >= 4 else {"a": 0.5, "b": 0.3, "c": 0.2}


def value(text: str) -> float:
    return 0.9 ** sum(a != b for a, b in zip(text, "cbac", strict=False))


def search(toys: Any, config: Any, settings: SearchSettings = SETTINGS, **options: Any) -> Any:
    options.setdefault("scorer", toys.Scorer(value))
    results = run_searches(
        [toys.problem(name, "cbac") for name in NAMES],
        bind(config),
        engine=options.pop("engine", None) or toys.Engine(letters),
        verify=toys.verify,
        settings=settings,
        **options,
    )
    found = {result.problem.id: result for result in results}
    return [found[name] for name in NAMES]


def arm(config: Any, settings: SearchSettings = SETTINGS, **fields: Any) -> RouterArm:
    values = {
        "name": strategy_name(config), "budget": config.budgets[0],
        "strategy": strategy_name(config), "config": asdict(config), "settings": settings,
        "continues_look": False, "right_weights": ZEROS, "right_shift": 0.0,
        "flops_weights": ZEROS, "flops_shift": 0.0,
    }  # fmt: skip
    return RouterArm(**(values | fields))


def written(path: Path, second: RouterArm) -> str:
    """A router that goes on where the look's best score is below 0.75."""
    weights = tuple(10.0 * (name == "best_score") for name in FEATURES)
    arms = (arm(LOOK, right_weights=weights, right_shift=-7.5), second)
    router = Router(
        features=FEATURES, arms=arms, budgets=(RouterBudget(budget=50, multiplier=0.0),)
    )
    path.write_text(json.dumps(asdict(router)))
    assert read_router(path) == record_of(router)
    return str(path)


def record_of(router: Router) -> Router:
    """The router as JSON has it: the configs of its arms have lists."""
    arms = tuple(replace(a, config=json.loads(json.dumps(a.config))) for a in router.arms)
    return replace(router, arms=arms)


def spent(usage: Usage) -> Usage:
    """Without what was read before, which the look changes for the arm."""
    return Usage(
        policy=replace(usage.policy, repeated_positions=0, repeated_flops=0.0),
        reward=replace(usage.reward, repeated_positions=0, repeated_flops=0.0),
    )


@pytest.mark.parametrize(
    ("config", "stop_score"),
    [
        (MCTSConfig(budgets=(5,), proposals=2), 0.0),
        # The look may have a solution of 0.729, which must not stop the arm.
        (WithoutReplacementConfig(budgets=(6,), round_size=1), 0.72),
        (SolutionsConfig(budgets=(6,)), 0.0),
    ],
)
def test_a_routed_search_is_the_look_or_the_look_and_the_arm(
    toys: Any, config: Any, stop_score: float, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, stop_score=stop_score)
    path = written(tmp_path / "router.json", arm(config, settings))
    routed = search(toys, RoutedConfig(router=path))
    went_on = 0
    for result, look, alone in zip(
        routed, search(toys, LOOK), search(toys, config, settings), strict=True
    ):
        best = max(node.score or 0.0 for node in look.nodes[1:])
        cost, answer = look.usage, look.snapshots[-1].answer
        if best < 0.75:
            went_on += 1
            cost, answer = look.usage + alone.usage, alone.snapshots[-1].answer
            assert [node.token_ids for node in result.nodes] == [
                node.token_ids for node in alone.nodes
            ]
        assert result.strategy == "routed"
        [snapshot] = result.snapshots
        assert (snapshot.budget, snapshot.answer) == (50, answer)
        assert spent(result.usage) == spent(cost) and snapshot.usage == result.usage
        assert sum((node.usage for node in result.nodes), Usage()) == result.usage
    assert 0 < went_on < len(NAMES)


def test_a_best_of_n_in_rounds_goes_on_with_the_look_s_samples(toys: Any, tmp_path: Path) -> None:
    config = SolutionsConfig(budgets=(6,), round_size=2)
    stopping = replace(SETTINGS, stop_score=0.7)
    assert continues_look(config, stopping, LOOK, SETTINGS)
    for other, settings in (
        (replace(config, round_size=3), SETTINGS),
        (replace(config, budgets=(2,)), SETTINGS),
        (config, replace(SETTINGS, temperature=0.5)),
        (MCTSConfig(), SETTINGS),
    ):
        assert not continues_look(other, settings, LOOK, SETTINGS)
    path = written(tmp_path / "router.json", arm(config, stopping, continues_look=True))
    looks, alone = search(toys, LOOK), search(toys, config, stopping)
    routed = search(toys, RoutedConfig(router=path))
    rounds: set[int] = set()
    for result, look, whole in zip(routed, looks, alone, strict=True):
        if max(node.score or 0.0 for node in look.nodes[1:]) < 0.75:
            value_of_prompt = Usage(reward=look.nodes[0].usage.reward)
            assert spent(result.usage) == spent(whole.usage + value_of_prompt)
            assert result.snapshots[0].answer == whole.snapshots[0].answer
            assert result.end is whole.end
            assert sum((node.usage for node in result.nodes), Usage()) == result.usage
            rounds.add(len(result.nodes))
        else:
            assert result.usage == look.usage
    assert len(rounds) > 1  # some searches stopped early


def test_a_killed_routed_search_goes_on(toys: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "router.json", arm(MCTSConfig(budgets=(5,), proposals=2)))
    config = RoutedConfig(router=path)
    whole = search(toys, config)
    assert search(toys, config, max_concurrent=1) == whole

    class Killed(BaseException):
        pass

    class Dying(toys.Scorer):
        calls = 0

        def score_batch(self, items: Any) -> Any:
            self.calls += 1
            if self.calls == 4:  # the look asks twice
                raise Killed
            return super().score_batch(items)

    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(Killed):
        search(toys, config, scorer=Dying(value), journal=journal)
    journal.close()
    engine = toys.Engine(letters)
    assert search(toys, config, engine=engine, journal=Journal(tmp_path / "journal.jsonl")) == whole
    asked = sum(request.n for batch in engine.batches for _, request in batch)
    assert 0 < asked < sum(result.usage.policy.sequences for result in whole)


def test_the_lower_limit_counts(toys: Any, tmp_path: Path) -> None:
    config = MCTSConfig(budgets=(9,), proposals=2)
    path = written(tmp_path / "router.json", arm(config, replace(SETTINGS, max_flops=1e12)))
    limited = search(toys, RoutedConfig(router=path), SearchSettings(max_generated_tokens=12))
    ends = {result.end for result in limited}
    assert ends == {SearchEnd.COMPLETE, SearchEnd.TOKENS}  # looks alone are complete


def test_features_by_hand(toys: Any) -> None:
    def node(score: float | None, logprob: float, **fields: Any) -> dict[str, Any]:
        return {
            "parent": 0, "score": score, "logprob": logprob,
            "terminal": StopReason.END_OF_SOLUTION,
        } | fields  # fmt: skip

    nodes: list[Node] = toys.tree(
        node(0.5, -1.0),
        node(0.25, -2.0),
        node(1.0, -3.0),
        node(None, -4.0, terminal=StopReason.LENGTH),
    )
    nodes[0].score = 0.125
    # Texts are "1" to "4", with one token each. 1 and 2 have the same final answer.
    features = features_of(nodes, lambda text: "x" if text in "12" else text)
    assert features == pytest.approx((0.125, 2 / 4, 1.0 / 4, 1.0, 1.75 / 4, 3 / 4, -10 / 4))
    assert len(features) == len(FEATURES)
    assert features_of(nodes[:1], str) == (0.125, 0, 0, 0, 0, 0, 0)


def test_a_look_is_a_best_of_n_and_the_value_of_the_prompt(toys: Any) -> None:
    for look, best in zip(
        search(toys, LOOK), search(toys, SolutionsConfig(budgets=(2,))), strict=True
    ):
        assert look.nodes[0].score == value("")
        assert look.snapshots[0].answer == best.snapshots[0].answer
        extra = look.usage - best.usage
        assert extra.policy.sequences == 0
        assert (extra.reward.sequences, extra.reward.positions) == (1, len("?>"))
        blind = search(toys, replace(LOOK, prompt_value=False))[NAMES.index(best.problem.id)]
        assert blind.nodes[0].score is None and blind.usage == best.usage


def test_estimates_by_hand() -> None:
    weights = (2.0, *ZEROS[1:])
    shifts = {"right_shift": -1.0, "flops_shift": -4.0}
    one = arm(LOOK, right_weights=weights, flops_weights=weights, **shifts)
    assert one.right((0.5, *ZEROS[1:])) == 0.5
    assert one.right((1.0, *ZEROS[1:])) == pytest.approx(1 / (1 + math.exp(-1)))
    assert one.right((-1000.0, *ZEROS[1:])) == 0.0
    assert one.flops((3.0, *ZEROS[1:])) == 2.0 and one.flops(ZEROS) == 0.0
    router = Router(features=FEATURES, arms=(one, arm(LOOK, flops_shift=2.0)), budgets=())
    # At features 0: P 0.269 for nothing against 0.5 for 2 FLOPs: worth up to 0.1155 per FLOP.
    assert [router.choose(ZEROS, m) for m in (0.0, 0.115, 0.116)] == [1, 1, 0]


def test_mistakes_are_named(toys: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "router.json", arm(MCTSConfig(budgets=(5,))))
    with pytest.raises(ValueError, match="router is 'absent': there is no such file"):
        search(toys, RoutedConfig(router="absent"))
    with pytest.raises(ValueError, match="budgets is 40; the router was fitted for 50 percent"):
        search(toys, RoutedConfig(router=path, budgets=(40,)))
    with pytest.raises(ValueError, match="takes one budget"):
        RoutedConfig(router=path, budgets=(40, 50))
    other = tmp_path / "other.json"
    other.write_text(Path(path).read_text().replace('"agreement"', '"agreeing"'))
    with pytest.raises(ValueError, match=r"other\.json: the router's features are"):
        search(toys, RoutedConfig(router=str(other)))
    other.write_text('{"features": []}')
    with pytest.raises(ValueError, match=r"other\.json: Router lacks the key 'arms'"):
        read_router(other)
