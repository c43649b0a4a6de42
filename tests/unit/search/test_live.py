"""Searches that come one at a time: what they share, what they do not, and how they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from data.tasks.countdown import make_problem
from data.types import Problem, StopReason, Verdict
from rewards.verifiers.final_answers import whole_text
from search.base import SearchEnd, SearchResult
from search.batcher import run_searches
from search.live import LiveSearches
from search.request_queue import RequestQueue
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from trainer.searching.engines import open_engine

SETTINGS = SearchSettings(guidance="likelihood", max_step_tokens=6, max_new_tokens=20, max_depth=3)
TREE = bind(MCTSConfig(budgets=(6,), expand_by_rollouts=True, proposals=2))
PROBLEMS = [replace(make_problem((3, 4, 7 + i), 11), id=f"p{i}") for i in range(8)]


def no_truth(problem: Problem, solution: str) -> Verdict:
    raise AssertionError


@pytest.fixture
def engine(tiny_policy: Any) -> Any:
    torch.manual_seed(0)
    return open_engine(*tiny_policy, None, seed=1, device=torch.device("cpu"))[0]


def search(live: LiveSearches, problem: Problem, strategy: Any = TREE, **more: Any) -> Any:
    settings = more.pop("settings", SETTINGS)
    return live.search(
        problem, strategy, settings, verify=no_truth, final_answer=whole_text, **more
    )


def test_a_search_finds_the_same_alone_and_in_company(engine: Any) -> None:
    alone = {
        result.problem.id: result
        for problem in PROBLEMS
        for result in run_searches(
            [problem], TREE, engine=engine, scorer=None, verify=no_truth, settings=SETTINGS
        )
    }

    async def together(live: LiveSearches) -> list[SearchResult]:
        return await asyncio.gather(*(search(live, problem) for problem in PROBLEMS))

    async def run() -> tuple[list[SearchResult], Any]:
        live = LiveSearches(engine, None, max_rows=64)
        results = await together(live)
        await live.close()
        return results, live.spending

    results, spending = asyncio.run(run())
    assert {result.problem.id: result for result in results} == alone
    total = sum(result.usage.policy.generated_tokens for result in results)
    assert spending.usage.policy.generated_tokens == total
    calls = sum(n.expansions for result in results for n in result.nodes)
    assert spending.batches < calls / 2  # the searches shared their batches


def test_a_withdrawn_search_stops_at_the_next_token_and_leaves_no_trace(engine: Any) -> None:
    """One search of 400 long samples is withdrawn at its third token; the other goes on."""
    decoded: list[int] = []
    reached = threading.Event()
    go_on = threading.Event()

    async def run() -> tuple[Any, Any]:
        live = LiveSearches(engine, None, max_rows=512)
        ends = engine.on_tokens

        def slow(items: Any, rows: Any) -> None:
            decoded.append(len(rows))
            if len(decoded) == 3:
                reached.set()
                assert go_on.wait(10)
            ends(items, rows)

        engine.on_tokens = slow
        many = SolutionsConfig(budgets=(400,))
        settings = replace(SETTINGS, answer="first")
        left = asyncio.create_task(search(live, PROBLEMS[0], bind(many), settings=settings))
        await asyncio.to_thread(reached.wait, 10)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        await live.call(lambda: None)  # the withdrawal has reached the searches
        go_on.set()
        stays = await search(live, PROBLEMS[1])
        usage = live.spending.usage.policy.generated_tokens
        await live.close()
        return stays, usage

    stays, generated = asyncio.run(run())
    assert stays.end in (SearchEnd.COMPLETE, SearchEnd.SETTLED)
    # 400 samples of at most 3 tokens were counted, and those of the search that stays.
    assert 0 < generated - stays.usage.policy.generated_tokens <= 1200


def test_a_deadline_ends_samples_that_are_being_decoded(engine: Any) -> None:
    async def run() -> SearchResult:
        live = LiveSearches(engine, None)
        ends = engine.on_tokens
        engine.on_tokens = lambda items, rows: (threading.Event().wait(0.06), ends(items, rows))
        settings = replace(SETTINGS, answer="first", max_seconds=0.1)
        config = bind(SolutionsConfig(budgets=(8, 16), round_size=8))
        result = await search(live, PROBLEMS[0], config, settings=settings)
        await live.close()
        return result

    result = asyncio.run(run())
    assert result.end is SearchEnd.DEADLINE and len(result.nodes) == 9  # one round of two
    cut = [n for n in result.nodes[1:] if n.terminal is StopReason.LENGTH]
    assert cut and all(len(n.token_ids) <= 4 for n in cut)


def test_a_search_that_is_over_leaves_nothing_in_memory(engine: Any) -> None:
    async def run() -> dict[str, Any]:
        live = LiveSearches(engine, None)
        ends = engine.on_tokens
        engine.on_tokens = lambda items, rows: (threading.Event().wait(0.02), ends(items, rows))
        late = search(live, PROBLEMS[0], settings=replace(SETTINGS, max_seconds=0.05))
        withdrawn = asyncio.create_task(search(live, PROBLEMS[1]))
        await asyncio.gather(late, search(live, PROBLEMS[2]))
        withdrawn.cancel()
        await asyncio.gather(withdrawn, return_exceptions=True)
        await live.close()
        return vars(vars(live)["_batched"])

    kept = asyncio.run(run())
    assert not kept["_of_search"] and not kept["_stopped"] and not kept["_decoding"]


@pytest.mark.parametrize("limit", [1, 7, 30])
def test_a_token_limit_holds(engine: Any, limit: int) -> None:
    async def run() -> SearchResult:
        live = LiveSearches(engine, None)
        settings = replace(SETTINGS, max_generated_tokens=limit)
        result = await search(live, PROBLEMS[0], settings=settings, token_limit=limit)
        await live.close()
        return result

    result = asyncio.run(run())
    # At the limit each sample that is asked for still has one token.
    spent = result.usage.policy
    assert 0 < spent.generated_tokens <= max(limit, spent.sequences)


def test_only_the_request_that_is_wrong_gets_the_error() -> None:
    batches: list[list[int]] = []

    def answer(items: Sequence[tuple[str, int]]) -> list[int]:
        batches.append([request for _, request in items])
        if any(request < 0 for _, request in items):
            raise ValueError("a negative one")
        return [request * 10 for _, request in items]

    async def run() -> list[Any]:
        with ThreadPoolExecutor(max_workers=1) as thread:
            queue = RequestQueue(answer, thread, most=3)
            asked = [queue.ask(9 - i, [("p", n)]) for i, n in enumerate((1, 2, -3, 4))]
            return await asyncio.gather(*asked, return_exceptions=True)

    one, two, error, four = asyncio.run(run())
    assert (one, two, four) == ([10], [20], [40])
    assert isinstance(error, ValueError)
    # By the order of the problems, three at a time; then each of the failed batch alone.
    assert batches == [[4, -3, 2], [4], [-3], [2], [1]]
