"""The driver for engines that answer single requests: the results are those of the batcher."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.types import Problem
from search.base import SearchResult
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.journal import Journal
from search.running import SearchProgress
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig, search_beam
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts

CONFIG = MCTSConfig(budgets=(3, 9), proposals=3)


def letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 3 else {"a": 0.5, "b": 0.3, "c": 0.2}


class Slow:
    """Answers single requests of an engine of batches, each after its own random time."""

    def __init__(self, engine: Any, *, longest: float = 0.003, fails_after: int = -1) -> None:
        self.engine, self.longest, self.left = engine, longest, fails_after
        self.dice = random.Random(7)
        self.orders: list[int] = []
        self.now = self.most_at_once = self.closed = 0

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_batch"):
            raise AttributeError(name)
        return getattr(self.engine, name)

    async def sample(self, problem: str, request: Any, order: int) -> Any:
        self.orders.append(order)
        return await self._after_a_while(lambda: self.engine.sample_batch([(problem, request)]))

    async def choose(self, problem: str, request: Any, order: int) -> Any:
        return await self._after_a_while(lambda: self.engine.choice_batch([(problem, request)]))

    async def _after_a_while(self, answer: Callable[[], Any]) -> Any:
        if self.left == 0:
            raise OSError("the engine is gone")
        self.left -= 1
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            await asyncio.sleep(self.longest * self.dice.random())
        finally:
            self.now -= 1
        return answer()[0]

    def check_room(self, problem: str, tokens: int) -> None:
        pass

    async def close(self) -> None:
        self.closed += 1


def search(toys: Any, engine: Any, names: str = "pqrst", **options: Any) -> list[SearchResult]:
    results = run_searches(
        [toys.problem(name, "abc") for name in names],
        partial(search_mcts, config=CONFIG),
        engine=engine,
        scorer=toys.Scorer(lambda text: len(text) / 5),
        verify=toys.verify,
        **options,
    )
    return sorted(results, key=lambda result: result.problem.id)


@pytest.mark.parametrize("running", [1, 8, 64])
def test_trees_are_those_of_the_batcher_in_any_order_of_the_problems(
    toys: Any, running: int
) -> None:
    names = "abcdefghijkl"
    expected = search(toys, toys.Engine(letters), names)
    for order in (names, names[::-1]):
        slow = Slow(toys.Engine(letters))
        assert search(toys, slow, order, max_concurrent=running) == expected
        assert (slow.most_at_once > 3) == (running > 1)  # one problem asks for three at most
        assert slow.closed == 1


def test_no_problem_waits_for_the_step_of_another(toys: Any) -> None:
    class Stuck(Slow):
        async def sample(self, problem: str, request: Any, order: int) -> Any:
            if problem == "p":
                await asyncio.sleep(0.2)
            return self.engine.sample_batch([(problem, request)])[0]

    engine = Stuck(toys.Engine(letters))
    problems = [toys.problem(name, "abc") for name in "pqr"]
    results = run_searches(
        problems, partial(search_beam, config=BeamConfig(budgets=(2,))), engine=engine,
        scorer=toys.Scorer(lambda text: 0.5), verify=toys.verify,
    )  # fmt: skip
    assert [result.problem.id for result in results][-1] == "p"


def test_a_failed_search_continues_from_its_journal(toys: Any, tmp_path: Path) -> None:
    expected = search(toys, toys.Engine(letters))
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    failing = Slow(first := toys.Engine(letters), fails_after=25)
    with pytest.raises(OSError, match="the engine is gone"):
        search(toys, failing, journal=journal)
    journal.close()
    assert failing.closed == 1 and failing.now == 0  # nothing is asked any more
    kept = len(path.read_text().splitlines())
    second = toys.Engine(letters)
    assert search(toys, Slow(second), journal=Journal(path)) == expected
    whole = sum(map(len, search_calls(toys)))
    asked = sum(map(len, first.batches)) + sum(map(len, second.batches))
    assert kept > 0 and whole <= asked <= whole + 15  # of 5 problems, at most their pending calls


def search_calls(toys: Any) -> list[list[Any]]:
    engine = toys.Engine(letters)
    search(toys, engine)
    return engine.batches


@pytest.mark.parametrize("where", ["scorer", "strategy"])
def test_an_error_is_raised_and_what_runs_is_withdrawn(toys: Any, where: str) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("broken")

    engine = Slow(toys.Engine(letters))
    scorer = toys.Scorer(failing if where == "scorer" else lambda text: 0.5)

    async def strategy(session: Any) -> Any:
        if where == "strategy" and session.problem.id == "q":
            failing()
        return await search_mcts(session, config=CONFIG)

    with pytest.raises(RuntimeError, match="broken"):
        list(
            run_searches(
                [toys.problem(name, "abc") for name in "pqr"], strategy, engine=engine,
                scorer=scorer, verify=toys.verify,
            )
        )  # fmt: skip
    assert engine.now == 0 and engine.closed == 1


def test_progress_counts_every_problem_once(toys: Any) -> None:
    told: list[SearchProgress] = []
    search(toys, Slow(toys.Engine(letters)), max_concurrent=2, on_progress=told.append)
    assert told[-1] == SearchProgress(finished=5, running=0, done=pytest.approx(5.0))
    assert all(now.running <= 2 and 0 <= now.done <= 5 + 1e-9 for now in told)
    assert [now.finished for now in told] == sorted(now.finished for now in told)


def problems_of(count: int) -> list[Problem]:
    return [Problem(id=str(i), prompt=f"{1 + i} 2 {3 + i} -> 6\n", answer="") for i in range(count)]


def test_a_real_model_grows_the_same_trees(toys: Any, tiny_policy: Any) -> None:
    def run(engine: Any, problems: Sequence[Problem]) -> dict[str, SearchResult]:
        results = run_searches(
            problems, partial(search_mcts, config=MCTSConfig(budgets=(4,))), engine=engine,
            scorer=None, verify=toys.verify,
            settings=SearchSettings(guidance="likelihood", max_new_tokens=40, max_depth=3),
        )  # fmt: skip
        return {result.problem.id: result for result in results}

    expected = run(TransformersEngine(*tiny_policy, EngineConfig(seed=5)), problems_of(3))
    slow = Slow(TransformersEngine(*tiny_policy, EngineConfig(seed=5)))
    assert run(slow, problems_of(3)[::-1]) == expected
