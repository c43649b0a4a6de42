"""Samples of servers that speak vLLM's protocol: those of the engine that decodes here, whatever
goes wrong on the way."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from data.flops import flop_model
from data.types import Problem, Sample
from search.base import ChoiceRequest, SampleRequest, SearchResult
from search.batcher import run_searches
from search.engines.model_server import (
    AskedModel,
    EngineRefused,
    EngineUnavailable,
    ModelServers,
    Places,
    ServerSettings,
)
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.engines.vllm_protocol import KnownLogprobs, VLLMDialect
from search.engines.vllm_server import VLLMServerEngine
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from trainer.models.loading import build_policy

from ...conftest import TINY
from ...policy_server import BLOCK, PolicyServer

PROMPT = "3 4 7 12 -> 24\n"


@pytest.fixture(scope="module")
def read() -> dict[Any, torch.Tensor]:
    """What all servers have read: most tests ask for the same trees."""
    return {}


@pytest.fixture
def server(tiny_policy: Any, read: dict[Any, torch.Tensor]) -> Iterator[PolicyServer]:
    started = PolicyServer(*tiny_policy, "policy", logits=read)
    yield started
    started.stop()


@pytest.fixture
def second(tiny_policy: Any, read: dict[Any, torch.Tensor]) -> Iterator[PolicyServer]:
    started = PolicyServer(*tiny_policy, "policy", logits=read)
    yield started
    started.stop()


def logprob(model: Any, prompt: Sequence[int], token: int) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return float(torch.log_softmax(logits, dim=-1)[token])


def engine_of(
    tiny_policy: Any, *servers: PolicyServer, context: int = 256, **settings: Any
) -> VLLMServerEngine:
    """An engine that asks these servers, which it has not yet checked."""
    model, tokenizer = tiny_policy
    prompt, tokens = (3, 4, 5), (6, 7)
    asked = AskedModel(
        name="policy",
        accepts=lambda name: name == "policy",
        as_served=lambda: "start it with --model policy",
    )
    known = KnownLogprobs(
        prompts=(prompt,),
        tokens=(tokens,),
        logprobs=(tuple(logprob(model, prompt, token) for token in tokens),),
    )
    patience = {"in_flight": 64, "wait_seconds": 10.0, "timeout_seconds": 10.0} | settings
    return VLLMServerEngine(
        ModelServers(
            [s.address for s in servers],
            asked,
            ServerSettings(**patience),
            VLLMDialect("policy", known),
        ),
        tokenizer,
        flop_model(model),
        seed=5,
        context_length=context,
        vocab_size=model.config.vocab_size,
    )


def ours(tiny_policy: Any, **options: Any) -> TransformersEngine:
    return TransformersEngine(*tiny_policy, EngineConfig(**{"seed": 5} | options))


def ask(engine: VLLMServerEngine, request: Callable[[], Any]) -> Any:
    async def run() -> Any:
        try:
            await engine.servers.choose_servers()
            return await request()
        finally:
            await engine.close()

    return asyncio.run(run())


def sample(engine: VLLMServerEngine, request: SampleRequest, problem: str = "p") -> Any:
    return ask(engine, lambda: engine.sample(problem, request))


def request_of(engine: Any, **fields: Any) -> SampleRequest:
    defaults = {"node": 2, "n": 3, "stop_at_step": False, "max_new_tokens": 20}
    return SampleRequest(prefix=engine.encode_prompt(PROMPT), **defaults | fields)


def same(found: Sample, expected: Sample) -> None:
    assert (found.token_ids, found.stop_reason) == (expected.token_ids, expected.stop_reason)
    assert found.step_logprobs == pytest.approx(expected.step_logprobs, abs=1e-4)
    # Minus the log-probability is the estimate of the entropy.
    assert found.step_entropies == tuple(-value for value in found.step_logprobs)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop_at_step": True, "first_index": 4},
        {"temperature": 0.0, "n": 1},
        {"temperature": 0.5},
        {"max_new_tokens": 1},
        {"max_new_tokens": 300},
    ],
)
def test_samples_are_those_of_the_engine_that_decodes_here(
    tiny_policy: Any, server: PolicyServer, fields: dict[str, Any]
) -> None:
    context = 40 if fields.get("max_new_tokens") == 300 else 256
    here = ours(tiny_policy, max_context=context)
    there = engine_of(tiny_policy, server, context=context)
    request = request_of(here, **fields)
    [expected] = here.sample_batch([("p", request)])
    found = sample(there, request)
    for one, other in zip(found.samples, expected.samples, strict=True):
        same(one, other)
    assert found.usage == expected.usage
    assert found.served.generated_tokens == found.usage.generated_tokens
    prompts = len(request.prefix) * request.n
    assert found.served.computed_tokens + found.served.cached_tokens == prompts


def test_choices_have_the_probabilities_of_the_whole_vocabulary(
    tiny_policy: Any, server: PolicyServer
) -> None:
    here, there = ours(tiny_policy), engine_of(tiny_policy, server)
    request = ChoiceRequest(node=1, prefix=here.encode_prompt(PROMPT), options=(5, 9, 3))
    [expected] = here.choice_batch([("p", request)])
    found = ask(there, lambda: there.choose("p", request))
    assert found.probabilities == pytest.approx(expected.probabilities, rel=1e-4)
    assert found.usage == expected.usage


PROBLEMS = [Problem(id=f"q{i}", prompt=f"{1 + i} 2 {3 + i} -> 6\n", answer="") for i in range(5)]
SETTINGS = SearchSettings(guidance="likelihood", max_step_tokens=6, max_new_tokens=16, max_depth=3)


def trees(toys: Any, engine: Any, problems: Sequence[Problem] = PROBLEMS, **options: Any) -> Any:
    """The results by problem. The last bits of numbers depend on the engine."""
    results = run_searches(
        problems, partial(search_mcts, config=MCTSConfig(budgets=(3,), proposals=2)),
        engine=engine, scorer=None, verify=toys.verify, settings=SETTINGS, **options,
    )  # fmt: skip
    return {result.problem.id: result for result in results}


def shape(found: dict[str, SearchResult]) -> Any:
    """What must be equal: all but the last bits, and what the server had in its cache."""
    return {
        id: (
            [(n.parent, n.token_ids, n.visit_count, n.terminal, n.usage) for n in result.nodes],
            [(s.answer, s.usage) for s in result.snapshots],
            result.usage,
        )
        for id, result in sorted(found.items())
    }


def samples_of(found: dict[str, SearchResult]) -> int:
    return sum(result.usage.policy.sequences for result in found.values())


def test_trees_are_those_of_the_engine_that_decodes_here(
    toys: Any, tiny_policy: Any, server: PolicyServer, second: PolicyServer
) -> None:
    expected = shape(trees(toys, ours(tiny_policy)))
    for running, servers in ((1, [server]), (8, [server, second]), (64, [second])):
        for problems in (PROBLEMS, PROBLEMS[::-1]):
            engine = engine_of(tiny_policy, *servers)
            if running > 1:
                servers[0].together = 4  # more than one problem asks for
            found = trees(toys, engine, problems, max_concurrent=running)
            assert shape(found) == expected
            for result in found.values():
                assert result.served is not None
                assert result.served.cached_tokens > 0  # a child's prefix is its parent's
                assert result.served.generated_tokens == result.usage.policy.generated_tokens
    assert server.most_at_once > 3


def test_the_requests_of_a_problem_go_to_one_server(
    toys: Any, tiny_policy: Any, server: PolicyServer, second: PolicyServer
) -> None:
    trees(toys, engine_of(tiny_policy, server, second))
    starts = [
        {tuple(body["prompt"][:6]) for body in one.asked if "allowed_token_ids" not in body}
        for one in (server, second)
    ]
    assert starts[0] and starts[1] and not starts[0] & starts[1]
    assert all(count == 1 for one in (server, second) for count in one.seeds().values())


def test_no_more_requests_are_in_flight_than_allowed(
    toys: Any, tiny_policy: Any, server: PolicyServer
) -> None:
    server.together = 3
    trees(toys, engine_of(tiny_policy, server, in_flight=3))
    assert server.most_at_once == 3


def test_the_first_problem_goes_first() -> None:
    async def run() -> list[int]:
        places, found = Places(1), list[int]()

        async def work(order: int) -> None:
            async with places.hold(order):
                await asyncio.sleep(0)
                found.append(order)

        tasks = [asyncio.create_task(work(order)) for order in (0, 5, 3, 4, 3)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await work(9)  # no place was lost
        return found

    assert asyncio.run(run()) == [0, 3, 4, 5, 9]


@pytest.mark.parametrize("fault", ["busy", "down", "error", "garbage", "drop", "hang"])
def test_a_request_without_an_answer_is_sent_again(
    toys: Any, tiny_policy: Any, server: PolicyServer, fault: str
) -> None:
    engine = engine_of(tiny_policy, server, timeout_seconds=0.5)
    whole = trees(toys, engine)
    expected, asked = shape(whole), samples_of(whole)
    server.asked.clear()
    server.faults = [fault, fault]
    assert shape(trees(toys, engine)) == expected
    assert not server.faults
    assert asked <= server.seeds().total() <= asked + 2


@pytest.mark.parametrize("several", [False, True])
def test_a_server_that_dies_and_comes_back_loses_nothing(
    toys: Any, tiny_policy: Any, server: PolicyServer, second: PolicyServer, several: bool
) -> None:
    engine = engine_of(tiny_policy, server, *([second] if several else []), in_flight=4)
    whole = trees(toys, engine)
    expected, asked = shape(whole), samples_of(whole)
    server.asked.clear()
    second.asked.clear()

    def restart() -> None:
        while len(server.asked) < 5:
            time.sleep(0.001)
        server.stop()
        time.sleep(0.3)
        server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    assert shape(trees(toys, engine)) == expected
    thread.join()
    again = server.seeds().total() + second.seeds().total() - asked
    assert 0 <= again <= 4  # those in flight
    # No problem moves to the other server, which answers each of its requests once.
    assert not server.seeds().keys() & second.seeds().keys()
    assert all(count == 1 for count in second.seeds().values())


def refused(engine: VLLMServerEngine) -> str:
    with pytest.raises(EngineRefused) as error:
        sample(engine, request_of(engine))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_server_that_cannot_answer_for_the_policy_is_refused(
    tiny_policy: Any, server: PolicyServer
) -> None:
    engine = partial(engine_of, tiny_policy, server)
    server.model_id = server.root = "another"
    assert "serves 'another' (of 'another'), not the policy 'policy': start it with" in refused(
        engine()
    )
    server.root = "policy"  # a name of its own for the right folder
    sample(engine(), request_of(engine()))
    server.processed = True
    assert "--logprobs-mode raw_logprobs" in refused(engine())
    server.processed = False
    needs = 20 + len(request_of(engine()).prefix)
    server.context = needs - 1
    text = f"was started with a context of {needs - 1} tokens, but problem p needs {needs}"
    assert text in refused(engine())
    server.context = 256
    torch.manual_seed(4)
    server.model = build_policy(TINY, "numbers", 40)[0].eval()
    text = r"has other weights than the policy 'policy': .* nats apart"
    assert re.search(text, refused(engine()))


def test_a_server_that_returns_with_other_weights_is_refused(
    toys: Any, tiny_policy: Any, server: PolicyServer
) -> None:
    engine = engine_of(tiny_policy, server)
    sample(engine, request_of(engine))
    server.faults = ["drop"]
    torch.manual_seed(4)
    server.model = build_policy(TINY, "numbers", 40)[0].eval()
    with pytest.raises(EngineRefused, match="has other weights"):
        trees(toys, engine)


def test_a_version_without_token_ids_is_named(tiny_policy: Any, server: PolicyServer) -> None:
    server.token_ids = False
    text = r"gives no answer of vLLM 0\.11 or newer \(KeyError\('token_ids'\)\)"
    assert re.search(text, refused(engine_of(tiny_policy, server)))


def test_a_server_that_stays_away_ends_the_search(tiny_policy: Any, server: PolicyServer) -> None:
    server.stop()
    engine = engine_of(tiny_policy, server, wait_seconds=0.2)
    with pytest.raises(EngineUnavailable, match=r"did not answer for 0\.2 s \(engine_wait_sec"):
        sample(engine, request_of(engine))
    server.start()


def test_a_request_that_never_gets_an_answer_ends_the_search(
    tiny_policy: Any, server: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.engines.model_server.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("search.engines.model_server.LONGEST_PAUSE", 0.001)
    engine = engine_of(tiny_policy, server)
    ask(engine, engine.servers.choose_servers)
    server.poison = 12
    with pytest.raises(EngineUnavailable, match="did not answer one request: status 503"):
        sample(engine, request_of(engine, n=1, max_new_tokens=12))
    assert server.seeds().total() == 10


def test_of_several_servers_those_of_the_policy_are_asked(
    tiny_policy: Any, server: PolicyServer, second: PolicyServer
) -> None:
    second.model_id = second.root = "another"
    engine = engine_of(tiny_policy, second, server)
    for problem in "abcd":
        sample(engine, request_of(engine), problem)
    assert [kept.address for kept in engine.servers.servers] == [server.address]
    assert not second.asked


def test_samples_without_replacement_are_refused(tiny_policy: Any, server: PolicyServer) -> None:
    engine = engine_of(tiny_policy, server)
    for fields in ({"excluded": (3,)}, {"with_draws": True}):
        with pytest.raises(EngineRefused, match="need the engine transformers"):
            sample(engine, replace(request_of(engine), **fields))


def test_the_cache_of_the_server_holds_whole_blocks(tiny_policy: Any, server: PolicyServer) -> None:
    engine = engine_of(tiny_policy, server, in_flight=1)
    request = request_of(engine, n=2)
    length = len(request.prefix)
    served = sample(engine, request).served
    assert served.cached_tokens == (length - 1) // BLOCK * BLOCK  # of the second sample
    assert served.requests == 2
