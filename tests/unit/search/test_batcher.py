"""The batcher: which calls share a batch, and how a killed run continues."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from search.base import SampleRequest
from search.batcher import run_searches
from search.journal import Journal
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts

CONFIG = MCTSConfig(budgets=(3, 9), proposals=3)


def letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 3 else {"a": 0.5, "b": 0.3, "c": 0.2}


class Killed(BaseException):
    pass


class DyingEngine:
    """An engine that passes all calls on and raises an error at the batch after `batches`
    batches."""

    def __init__(self, engine: Any, batches: int) -> None:
        self.engine, self.left = engine, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def sample_batch(self, items: Any) -> Any:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return self.engine.sample_batch(items)


def search(toys: Any, engine: Any, journal: Journal | None, concurrent: int = 3) -> list[Any]:
    return list(
        run_searches(
            [toys.problem(name, "abc") for name in "pqrst"],
            partial(search_mcts, config=CONFIG),
            engine=engine,
            scorer=toys.Scorer(lambda text: len(text) / 5),
            verify=toys.verify,
            max_concurrent=concurrent,
            journal=journal,
        )
    )


@pytest.mark.parametrize("batches", [1, 4, 11])
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_search_continues_and_ends_as_if_it_had_not_been(
    toys: Any, tmp_path: Path, batches: int, torn: bool
) -> None:
    whole = search(toys, whole_engine := toys.Engine(letters), None)
    path = tmp_path / "journal.jsonl"
    first = toys.Engine(letters)
    with pytest.raises(Killed):
        search(toys, DyingEngine(first, batches), Journal(path))
    if torn:
        path.write_bytes(path.read_bytes()[:-7])
    second = toys.Engine(letters)
    resumed = search(toys, second, Journal(path))
    assert sorted(map(str, resumed)) == sorted(map(str, whole))
    if not torn:  # no call was computed twice
        asked = [item for engine in (first, second) for batch in engine.batches for item in batch]
        assert len(asked) == sum(map(len, whole_engine.batches))
        assert len(asked) == len({str(item) for item in asked})


def test_batches_are_full_and_in_order(toys: Any) -> None:
    engine = toys.Engine(letters)
    results = search(toys, engine, None)
    assert {r.problem.id for r in results} == set("pqrst")
    assert [problem for problem, _ in engine.batches[0]] == ["p", "q", "r"]
    for batch in engine.batches:
        order = [problem for problem, _ in batch]
        assert order == sorted(order)
    # 5 problems of at most 10 calls, 3 at a time: far fewer batches than calls.
    assert len(engine.batches) <= 21


def test_an_error_in_a_strategy_is_raised_not_scored(toys: Any) -> None:
    async def broken(session: Any) -> Any:
        await session.sample(
            [SampleRequest(node=0, prefix=session.prompt_ids, n=1, stop_at_step=True,
                           max_new_tokens=1)]
        )  # fmt: skip
        raise RuntimeError("strategy bug")

    with pytest.raises(RuntimeError, match="strategy bug"):
        list(
            run_searches(
                [toys.problem("p", "abc")], broken, engine=toys.Engine(letters), scorer=None,
                verify=toys.verify,
            )
        )  # fmt: skip


def test_usage_is_the_sum_of_every_call(toys: Any) -> None:
    engine = toys.Engine(letters)
    results = search(toys, engine, None)
    sampled = sum(r.usage.policy.sequences for r in results)
    assert sampled == sum(request.n for batch in engine.batches for _, request in batch)
