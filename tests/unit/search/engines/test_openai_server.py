"""Samples of servers that read and write text: those of the engine that decodes here where the
text has the same tokens, and never an answer where it does not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from data.flops import flop_model
from data.token_text import END_TOKENS
from data.types import Problem, Sample, StopReason
from search.base import ChoiceRequest, SampleRequest
from search.batcher import run_searches
from search.engines import openai_server
from search.engines.model_server import AskedModel, EngineRefused, ModelServers, ServerSettings
from search.engines.openai_protocol import OpenAIDialect
from search.engines.openai_server import OpenAIEngine
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.growth import set_priors
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.trees.files import result_from_json, result_to_json
from trainer.models.loading import build_policy
from trainer.searching.engines import check_guidance

from ...conftest import TINY
from ...policy_server import PolicyServer

PROMPT = "3 4 7 12 -> 24\n"


@pytest.fixture(scope="module")
def policy() -> tuple[Any, Any]:
    """One token per character: text has one reading. Two tokens end a solution."""
    torch.manual_seed(3)
    model, tokenizer = build_policy(TINY, "characters", 40)
    other = tokenizer.convert_tokens_to_ids("9")
    setattr(tokenizer, END_TOKENS, frozenset({tokenizer.eos_token_id, other}))
    return model, tokenizer


@pytest.fixture
def server(policy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[PolicyServer]:
    """It draws what the engine that decodes here draws: the seeds are its keys."""
    monkeypatch.setattr(openai_server, "SEED_MASK", -1)
    started = PolicyServer(*policy, "policy")
    started.text_only = True
    yield started
    started.stop()


def engine_of(policy: Any, *servers: PolicyServer, context: int = 256) -> OpenAIEngine:
    model, tokenizer = policy
    asked = AskedModel(name="policy", accepts=lambda name: name == "policy", as_served=lambda: "")
    settings = ServerSettings(
        in_flight=64, wait_seconds=10.0, timeout_seconds=10.0, headers={"Authorization": "Bearer k"}
    )
    dialect = OpenAIDialect()
    return OpenAIEngine(
        ModelServers([s.address for s in servers], asked, settings, dialect),
        dialect,
        tokenizer,
        flop_model(model),
        seed=5,
        context_length=context,
        vocab_size=model.config.vocab_size,
    )


def ask(engine: OpenAIEngine, request: Any) -> Any:
    async def run() -> Any:
        try:
            await engine.servers.choose_servers()
            if isinstance(request, ChoiceRequest):
                return await engine.choose("p", request)
            return await engine.sample("p", request)
        finally:
            await engine.close()

    return asyncio.run(run())


def same(found: Sample, expected: Sample, pad: int) -> bool:
    """Whether a sample is the expected one. One with a special token in its text is cut off."""
    if pad in expected.token_ids:
        assert (found.stop_reason, found.stop_reason.finished) == (StopReason.LENGTH, False)
        return False
    assert found.stop_reason == expected.stop_reason
    ids = expected.token_ids
    if found.stop_reason is StopReason.END_OF_SOLUTION:  # either end token becomes the one to write
        ids = (*ids[:-1], found.token_ids[-1])
    assert found.token_ids == ids
    assert found.step_logprobs == pytest.approx(expected.step_logprobs, abs=1e-4)
    assert found.step_entropies == tuple(-value for value in found.step_logprobs)
    return True


@pytest.mark.parametrize("names_stops", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {"n": 24},
        {"n": 24, "stop_at_step": True},
        {"temperature": 0.0, "n": 1},
        {"max_new_tokens": 300, "n": 4},
    ],
)
def test_samples_are_those_of_the_engine_that_decodes_here(
    policy: Any, server: PolicyServer, fields: dict[str, Any], names_stops: bool
) -> None:
    server.names_stops = names_stops
    context = 40 if fields.get("max_new_tokens") == 300 else 256
    here = TransformersEngine(*policy, EngineConfig(seed=5, max_context=context))
    there = engine_of(policy, server, context=context)
    request = SampleRequest(
        prefix=here.encode_prompt(PROMPT),
        node=2,
        **{"n": 3, "stop_at_step": False, "max_new_tokens": 20} | fields,
    )
    [expected] = here.sample_batch([("p", request)])
    found = ask(there, request)
    pad = policy[1].pad_token_id
    pairs = list(zip(found.samples, expected.samples, strict=True))
    equal = [same(one, other, pad) for one, other in pairs]
    assert sum(equal) >= len(equal) / 2
    if len(pairs) == 24:
        reasons = {sample.stop_reason for sample in found.samples}
        assert StopReason.END_OF_SOLUTION in reasons
        assert len(reasons) >= 2
    # The server's count, also of tokens that the text was cut before.
    more = 0 if names_stops or not request.stop_at_step else 1
    spent, needed = found.usage.generated_tokens, expected.usage.generated_tokens
    assert spent >= needed + more if more else spent == needed
    assert found.served.generated_tokens == found.usage.generated_tokens
    prompts = len(request.prefix) * request.n
    assert found.served.computed_tokens + found.served.cached_tokens == prompts
    stops = server.asked[-1]["stop"]
    assert ("\n" in stops) == (request.stop_at_step and names_stops)
    assert set(stops) - {"\n"} == {"<eos>", "9"}


def test_a_text_is_cut_before_an_end_string(policy: Any, server: PolicyServer) -> None:
    server.names_stops = server.heeds_stops = False
    here, there = TransformersEngine(*policy, EngineConfig(seed=5)), engine_of(policy, server)
    request = SampleRequest(
        prefix=here.encode_prompt(PROMPT), node=2, n=24, stop_at_step=False, max_new_tokens=20
    )
    [expected] = here.sample_batch([("p", request)])
    found = ask(there, request)
    nine = policy[1].convert_tokens_to_ids("9")
    cut = [
        (one.token_ids, other.token_ids[:-1])
        for one, other in zip(found.samples, expected.samples, strict=True)
        if other.token_ids[-1] == nine and policy[1].pad_token_id not in other.token_ids
    ]
    assert cut and all(one[:-1] == other for one, other in cut)
    assert found.usage.generated_tokens > expected.usage.generated_tokens  # it was all computed


def test_a_server_without_log_probabilities_and_counts(policy: Any, server: PolicyServer) -> None:
    server.gives_logprobs = server.gives_usage = False
    engine = engine_of(policy, server)
    request = SampleRequest(
        prefix=engine.encode_prompt(PROMPT), node=2, n=3, stop_at_step=True, max_new_tokens=20
    )
    found = ask(engine, request)
    assert all(math.isnan(value) for s in found.samples for value in s.step_logprobs)
    assert found.usage.generated_tokens == sum(len(s.token_ids) for s in found.samples)
    assert found.served.computed_tokens == 3 * len(request.prefix)
    for fields, text in (
        ({"guidance": "likelihood"}, "guidance is 'likelihood', but the server gives no log-prob"),
        ({"guidance": "oracle", "likelihood_weight": 1.0}, r"likelihood_weight is 1\.0, but"),
        ({"guidance": "self_evaluation", "question": "?"}, "gives no probability of a given token"),
    ):
        with pytest.raises(ValueError, match=text):
            check_guidance(engine, SearchSettings(**fields))


def trees(toys: Any, engine: Any, guidance: str = "self_consistency") -> Any:
    results = run_searches(
        [Problem(id=f"q{i}", prompt=f"{1 + i} 2 {3 + i} -> 6\n", answer="") for i in range(3)],
        partial(search_mcts, config=MCTSConfig(budgets=(2,), proposals=2)),
        engine=engine,
        scorer=None,
        verify=toys.verify,
        settings=SearchSettings(
            guidance=guidance, guidance_rollouts=2, max_step_tokens=6, max_new_tokens=16
        ),
    )
    return sorted(results, key=lambda result: result.problem.id)


def test_a_search_survives_faults_and_its_trees_are_written_without_log_probabilities(
    toys: Any, policy: Any, server: PolicyServer
) -> None:
    server.gives_logprobs = False
    whole = trees(toys, engine_of(policy, server))
    engine = engine_of(policy, server)
    server.faults = ["busy", "garbage", "drop", "error"]
    for result, expected in zip(trees(toys, engine), whole, strict=True):
        ids = [node.token_ids for node in result.nodes]
        assert ids == [node.token_ids for node in expected.nodes] and len(ids) > 2
        row = result_to_json(result, "policy")
        assert row["nodes"][1]["logprob"] is None
        assert math.isnan(result_from_json(row).nodes[1].logprob)
        assert result.served is not None
        with pytest.raises(ValueError, match="gives no log-probabilities"):
            set_priors(result.nodes[1:], "sequence")
    assert not server.faults


def test_what_text_cannot_say_is_refused(policy: Any, server: PolicyServer) -> None:
    engine = engine_of(policy, server)
    prefix = engine.encode_prompt(PROMPT)
    with pytest.raises(EngineRefused, match="need the engine transformers"):
        ask(engine, SampleRequest(
            prefix=prefix, node=0, n=1, stop_at_step=True, max_new_tokens=4, excluded=(3,)
        ))  # fmt: skip
    with pytest.raises(EngineRefused, match="need the engine transformers or vllm_server"):
        ask(engine, ChoiceRequest(prefix=prefix, node=0, options=(3,)))
    server.model_id = server.root = "another"
    with pytest.raises(EngineRefused, match="serves 'another'"):
        ask(engine_of(policy, server), ChoiceRequest(prefix=prefix, node=0, options=(3,)))
