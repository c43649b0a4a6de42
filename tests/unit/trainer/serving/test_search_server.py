"""The server of a tiny real bundle over real HTTP, asked by OpenAI's client."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from search.base import solution_ids
from search.trees.files import result_from_json
from tests.unit.search_server import PROBLEM, Served, serving
from trainer.serving.access import Places
from trainer.serving.config import SearchServerConfig
from trainer.serving.errors import APIError
from trainer.serving.service import limited
from trainer.serving.traces import TraceStore

pytestmark = pytest.mark.slow


def answered(response: httpx.Response) -> dict[str, Any]:
    """What a response says, without what differs between two equal requests."""
    assert response.status_code == 200, response.text
    content = response.json()
    for key in ("id", "created", "trace_id"):
        del content[key]
    return content


def test_equal_seeds_give_equal_answers_alone_and_in_company(served: Served) -> None:
    alone = {n: answered(served.ask(seed=n, reasoning_effort="high")) for n in range(3)}
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(served.ask, seed=n % 3, reasoning_effort="high") for n in range(12)]
        together = [answered(each.result()) for each in asked]
    assert together == [alone[n % 3] for n in range(12)]
    assert len({json.dumps(alone[n]["choices"]) for n in range(3)}) > 1
    drawn = served.ask(reasoning_effort="high")
    assert answered(served.ask(seed=drawn.json()["seed"], reasoning_effort="high")) == answered(
        drawn
    )


def test_every_token_of_the_tree_is_in_the_usage(served: Served) -> None:
    response = served.ask(seed=5, n=2, reasoning_effort="high")
    content = response.json()
    assert response.headers["X-Trace-Id"] == content["trace_id"]
    trace = httpx.get(f"{served.address}/v1/traces/{content['trace_id']}").json()
    trees = [result_from_json(row) for row in trace["trees"]]
    assert [tree.strategy for tree in trees] == ["mcts", "mcts"]
    policy = sum(n.usage.policy.generated_tokens for tree in trees for n in tree.nodes)
    reward = sum(n.usage.reward.positions for tree in trees for n in tree.nodes)
    usage = content["usage"]
    assert usage["completion_tokens"] == policy > 0
    assert usage["reward_model"]["positions"] == reward > 0
    nodes = [tree.snapshots[-1].answer_node for tree in trees]
    shown = 0
    for choice, tree, node in zip(content["choices"], trees, nodes, strict=True):
        text = choice["message"]["content"]
        assert text == tree.snapshots[-1].answer
        # The greedy completion of an open path is no node.
        score = None if node is None else tree.nodes[node].score
        assert choice["thinktree"]["confidence"] == score
        encoded = served.service.engine.tokenizer.encode(text, add_special_tokens=False)
        shown += len(encoded if node is None else solution_ids(tree.nodes, node))
    assert usage["completion_tokens_details"]["reasoning_tokens"] == policy - shown
    assert usage["prompt_tokens"] == len(served.service.engine.encode_prompt(f"{PROBLEM}\n"))


def test_the_levels_are_those_of_the_bundle(served: Served) -> None:
    client = served.client()
    [model] = client.models.list().data
    assert model.id == "bundle" and client.models.retrieve("bundle").owned_by == "thinktree"
    messages: Any = [{"role": "user", "content": PROBLEM}]
    found: dict[str, Any] = {}
    efforts: Any = ("low", "medium", "high")
    for effort in efforts:
        found[effort] = client.chat.completions.create(
            model="bundle", messages=messages, reasoning_effort=effort, seed=1
        )
    sampled = {name: one.choices[0].thinktree["solutions"] for name, one in found.items()}
    assert sampled["low"] <= 1
    assert found["low"].usage.completion_tokens < found["high"].usage.completion_tokens
    # Greedy decoding does not depend on the seed.
    other = client.chat.completions.create(
        model="bundle", messages=messages, reasoning_effort="low", seed=2
    )
    assert other.choices[0].message.content == found["low"].choices[0].message.content
    default = client.chat.completions.create(model="bundle", messages=messages, seed=1)
    assert default.choices[0].message == found["medium"].choices[0].message


def test_reasoning_is_shown_where_it_is_asked_for(served: Served) -> None:
    for seed in range(4):
        whole = served.ask(seed=seed).json()["choices"][0]["message"]
        parts = served.ask(seed=seed, include_reasoning=True).json()["choices"][0]["message"]
        assert parts["reasoning_content"] + parts["content"] == whole["content"]
        assert "\n" not in parts["content"].strip() and "reasoning_content" not in whole


def test_a_stream_says_what_a_whole_answer_says(served: Served) -> None:
    client = served.client()
    messages: Any = [{"role": "user", "content": PROBLEM}]
    whole = client.chat.completions.create(model="bundle", messages=messages, seed=3, n=2)
    chunks = list(
        client.chat.completions.create(
            model="bundle", messages=messages, seed=3, n=2, stream=True,
            stream_options={"include_usage": True}, extra_body={"include_reasoning": True},
        )
    )  # fmt: skip
    texts, ends = {0: "", 1: ""}, {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += getattr(choice.delta, "reasoning_content", None) or ""
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert texts == {c.index: c.message.content for c in whole.choices}
    assert ends == {c.index: c.finish_reason for c in whole.choices}
    assert chunks[-1].choices == [] and all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    body = {"model": "bundle", "prompt": f"{PROBLEM}\n", "seed": 3, "stream": True}
    raw = httpx.post(f"{served.address}/v1/completions", json=body, timeout=30).text
    events = [line.removeprefix("data: ") for line in raw.splitlines() if line]
    text = client.completions.create(model="bundle", prompt=f"{PROBLEM}\n", seed=3).choices[0].text
    assert events[-1] == "[DONE]" and json.loads(events[0])["choices"][0]["text"] == text


def test_a_limit_of_tokens_holds_for_thinking_and_answer(served: Served) -> None:
    whole = served.ask(seed=1, reasoning_effort="high").json()["usage"]["completion_tokens"]
    for limit in (1, 5, whole - 1, 100 * whole):
        content = served.ask(seed=1, reasoning_effort="high", max_completion_tokens=limit).json()
        # At the limit each sample that is asked for still has one token.
        most = max(limit, content["usage"]["policy"]["sequences"])
        assert content["usage"]["completion_tokens"] <= most
    assert content["usage"]["completion_tokens"] == whole


def test_keys_guard_the_server_and_the_traces(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first-key\n\nsecond-key\n")
    with serving(bundle, api_keys=str(tmp_path / "keys"), max_running=1, max_waiting=1) as served:
        messages: Any = [{"role": "user", "content": PROBLEM}]
        first, second = served.client("first-key"), served.client("second-key")
        with pytest.raises(openai.AuthenticationError, match="no valid API key"):
            served.client("wrong").chat.completions.create(model="bundle", messages=messages)
        basic = {"Authorization": "Basic first-key"}
        assert httpx.get(f"{served.address}/v1/models", headers=basic).status_code == 401
        answer: Any = first.chat.completions.create(model="bundle", messages=messages)
        path = f"/traces/{answer.trace_id}"
        assert first.get(path, cast_to=httpx.Response).json()["trace_id"] == answer.trace_id
        with pytest.raises(openai.NotFoundError, match="no such trace"):
            second.get(path, cast_to=httpx.Response)
        with pytest.raises(openai.RateLimitError, match="0 searches run or wait, and 2") as refused:
            first.chat.completions.create(model="bundle", messages=messages, n=3)
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        assert first.chat.completions.create(model="bundle", messages=messages, n=2).choices[1]


def test_a_deadline_that_passes_before_the_search_is_an_error(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = served.ask(deadline_seconds=1e-9, reasoning_effort="high")
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "deadline"
    assert "Retry-After" in refused.headers
    config = replace(served.service.config, deadline_seconds=1e-9)
    monkeypatch.setattr(served.service, "config", config)
    assert served.ask(deadline_seconds=60).status_code == 503  # the server's own is shorter


def test_trees_are_kept_in_bounded_memory() -> None:
    store = TraceStore(most=2, bytes=400)
    for name in ("a", "b", "c"):
        store.add(name, "me", [{"name": name}])
    assert store.get("a", "me") is None and store.get("c", "you") is None
    assert json.loads(store.get("c", "me") or b"")["trees"] == [{"name": "c"}]
    large = [{"text": "".join(map(chr, range(0x4E00, 0x4E00 + 400)))}]
    store.add("large", "me", large)  # alone it needs more than there is
    assert store.get("large", "me") is None and store.get("b", "me") is not None
    assert 0 < store.size <= 400


def test_a_full_queue_says_when_to_come_back() -> None:
    places = Places(most=2, waiting=3)
    places.seconds = 4.0
    places.enter(5)
    with pytest.raises(APIError) as refused:
        places.enter(3)
    assert refused.value.headers == {"Retry-After": "6"}  # 3 too many, 2 at a time, 4 s each
    places.leave(3)
    places.enter(3)


def test_the_smaller_limit_of_level_and_request_holds(served: Served) -> None:
    level = served.service.bundle.level("high")
    own = {"max_generated_tokens": 50, "max_seconds": 2}
    level = replace(level, settings={**level.settings, **own})
    for tokens, seconds, found in ((10, 1.0, (10, 1.0)), (1000, 9.0, (50, 2)), (0, 9.0, (50, 2))):
        settings, _ = limited(level, tokens, seconds)
        assert (settings.max_generated_tokens, settings.max_seconds) == found


def test_the_mean_time_of_a_search_follows_the_searches() -> None:
    async def run() -> float:
        places = Places(most=1, waiting=0)
        for _ in range(3):
            async with places.running_search(asyncio.get_running_loop().time() + 10):
                pass
        return places.seconds

    assert 0.9**3 <= asyncio.run(run()) < 0.9**3 + 0.1  # from 1 s, by searches of no time


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"head_seconds": 0.0}, "head_seconds is 0.0"),
        ({"stall_seconds": -1.0}, "stall_seconds is -1.0"),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"port": 0}, "port is 0"),
        ({"max_running": 0}, "max_running is 0"),
        ({"deadline_seconds": 0.0}, "deadline_seconds is 0.0"),
        ({"max_traces": -1}, "max_traces is -1"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SearchServerConfig(bundle="b"), **fields)
