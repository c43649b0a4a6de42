"""The scoring server and its client over real HTTP: order, batches, limits, errors, absence."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import HTTPServer, SimpleHTTPRequestHandler
from typing import Any

import httpx
import pytest

from data.types import ModelUsage, SteppedSolution
from rewards.base import SolutionTooLong
from rewards.server.batching import BatchingConfig, MicroBatcher, QueueFull
from rewards.server.client import (
    ScoringClient,
    ScoringFailed,
    ServedDescription,
    ServedModelChanged,
    ServedTextModel,
    ServedTokenModel,
    ServerConfig,
    ServerUnavailable,
)
from rewards.server.scoring import ServedModel, TokenSequence

LIMIT = 40


class Toy:
    """A text's score is 1 / its length; tokens are letters. "?" is no judgement, "bad" an error of
    one request's, "broken" one of the machine's. `gate` holds every batch back while it is unset.
    """

    def __init__(self) -> None:
        self.asked: list[list[SteppedSolution]] = []
        self.gate = threading.Event()
        self.gate.set()

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        lengths = [len(s.prompt) + sum(map(len, s.steps)) for s in solutions]
        long = tuple(i for i, length in enumerate(lengths) if length > LIMIT)
        if long:
            raise SolutionTooLong(
                "", indices=long, lengths=tuple(lengths[i] for i in long), limit=LIMIT
            )
        self.asked.append(list(solutions))
        assert self.gate.wait(10)
        prompts = {solution.prompt for solution in solutions}
        if "bad" in prompts:
            raise ValueError("a bad one")
        if "broken" in prompts:
            raise RuntimeError("out of memory")
        scores = [[math.nan if x == "?" else 1 / len(x) for x in s.steps] for s in solutions]
        usage = [
            ModelUsage(prompt_tokens=n, positions=n, sequences=1, flops=n / 3) for n in lengths
        ]
        return scores, usage

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        scores = [[1 / (s[end] + 1) for end in ends] for s, ends in zip(sequences, step_ends)]  # noqa: B905
        return scores, [ModelUsage(positions=len(s)) for s in sequences]


def served(toy: Any, fingerprint: str = "f1", **fields: Any) -> ServedModel:
    said: dict[str, Any] = {
        "reward_model": "toy",
        "convention": "toy",
        "fingerprint": fingerprint,
        "asked_in": ("token_ids", "text"),
        "whole_prompt": False,
        "vocab_size": 10,
        "max_tokens": LIMIT,
        "max_requests": 1000,
    }
    models = {"text_model": toy, "token_model": toy} | fields
    return ServedModel(description=ServedDescription(**said), **models)


def text(prompt: str, *steps: str) -> dict[str, Any]:
    return {"prompt": prompt, "steps": list(steps)}


def post(address: str, *requests: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{address}/score", json={"requests": list(requests), **more}, timeout=20)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 10 s")


def client(address: str, **fields: Any) -> ScoringClient:
    return ScoringClient(ServerConfig(server=address, **{"wait_seconds": 10.0} | fields))


def test_scores_come_in_order_with_their_usage(serve: Any) -> None:
    with serve(lambda: served(Toy())) as (address, _):
        model = ServedTextModel(client(address))
        solutions = [
            SteppedSolution(prompt="q" * (i % 7), steps=("a" * (i + 1), "?")) for i in range(30)
        ]
        scores, usage = model.score_solutions(solutions)
        assert [row[0] for row in scores] == [1 / (i + 1) for i in range(30)]
        assert all(math.isnan(row[1]) for row in scores)
        lengths = [i % 7 + i + 2 for i in range(30)]
        assert usage == [
            ModelUsage(prompt_tokens=n, positions=n, sequences=1, flops=n / 3) for n in lengths
        ]
        in_ids = ServedTokenModel(client(address))
        assert in_ids.score([[1, 2, 3], [4, 9]], [[0, 2], [1]]) == (
            [[1 / 2, 1 / 4], [1 / 10]],
            [ModelUsage(positions=3), ModelUsage(positions=2)],
        )
        assert model.score_solutions([]) == ([], [])


def test_connections_share_batches_and_keep_their_answers(serve: Any) -> None:
    toy = Toy()
    toy.gate.clear()
    with serve(lambda: served(toy), batch_rows=16) as (address, _):
        with ThreadPoolExecutor(40) as threads:
            first = threads.submit(post, address, text("first", "a"))
            wait_until(lambda: len(toy.asked) == 1)
            others = [
                threads.submit(post, address, text("q", "a" * i), text("r", "b" * i))
                for i in range(1, 21)
            ]
            wait_until(lambda: httpx.get(f"{address}/health").json()["waiting"] == 40)
            toy.gate.set()
            assert first.result().json()["results"][0]["scores"] == [1.0]
            for i, other in enumerate(others, start=1):
                results = other.result().json()["results"]
                assert [r["scores"] for r in results] == [[1 / i], [1 / i]]
                assert [r["usage"]["positions"] for r in results] == [i + 1, i + 1]
        assert [len(batch) for batch in toy.asked] == [1, 16, 16, 8]
        health = httpx.get(f"{address}/health").json()
        assert (health["status"], health["answered"], health["batches"]) == ("ready", 41, 4)
        assert (health["fingerprint"], health["convention"]) == ("f1", "toy")


NO_REQUESTS: list[tuple[Any, str]] = [
    ({"requests": [text("q", "a")], "extra": 1}, r"extra: Extra inputs"),
    ({"requests": [text("q", "a") | {"step": 1}]}, r"requests\.0\.text\.step: Extra"),
    ({"requests": [text("q", "a"), {"prompt": "q"}]}, r"requests\.1\.text\.steps: Field req"),
    ({"requests": [text("q")]}, r"requests\.0\.text\.steps: List should have at least 1"),
    ({"requests": [{"prompt": 3, "steps": ["a"]}]}, r"prompt: Input should be a valid string"),
    ({"requests": ["q"]}, r"requests\.0\.text: Input should be a valid dictionary"),
    ({"requests": []}, r"requests: List should have at least 1"),
    ({"requests": [{"token_ids": [1, 2.0], "step_ends": [1]}]}, r"token_ids\.1: Input should"),
    ({"requests": [{"token_ids": [1, -2], "step_ends": [1]}]}, r"token_ids\.1: Input should"),
    ({"requests": [{"token_ids": [1, True], "step_ends": [1]}]}, r"token_ids\.1: Input should"),
    ({"requests": [{"token_ids": [1], "step_ends": [1]}]}, r"step_ends holds 1; there are 1"),
    ({"requests": [text("q", "a") | {"token_ids": [1]}]}, r"token_ids\.prompt: Extra"),
    ([], r"body: Input should be a valid dictionary"),
]


def test_what_is_not_a_request_is_refused_with_its_place(serve: Any) -> None:
    toy = Toy()
    with serve(lambda: served(toy)) as (address, _):
        for body, said in NO_REQUESTS:
            response = httpx.post(f"{address}/score", json=body)
            assert response.status_code == 422, body
            assert re.search(said, response.json()["error"]), response.json()
        lone = httpx.post(
            f"{address}/score",
            content=b'{"requests": [{"prompt": "\\ud800", "steps": ["a"]}]}',
            headers={"Content-Type": "application/json"},
        )
        assert lone.status_code == 422 and "surrogates" in lone.json()["error"]
    assert toy.asked == []


def test_a_request_too_long_is_refused_alone(serve: Any) -> None:
    toy = Toy()
    with serve(lambda: served(toy)) as (address, _):
        response = post(address, text("q", "a"), text("q", "a" * 60), text("q", "aa"))
        assert response.status_code == 207
        first, second, third = response.json()["results"]
        assert first["scores"] == [1.0] and third["scores"] == [0.5]
        assert second == {
            "status": 413,
            "error": "the request has 61 tokens, more than the reward model's 40",
            "length": 61,
            "limit": 40,
        }
        in_ids = {"token_ids": [1] * 41, "step_ends": [0]}
        alone = post(address, in_ids)
        assert alone.status_code == 413
        assert alone.json()["results"][0]["length"] == 41
        # What the others cost is counted once though they are asked twice.
        model = ServedTextModel(client(address))
        asked = [SteppedSolution(prompt="q", steps=("a" * n,)) for n in (3, 50, 4, 70)]
        toy.asked.clear()
        with pytest.raises(SolutionTooLong, match=r"51 tokens.*2 of 4") as refused:
            model.score_solutions(asked)
        error = refused.value
        assert (error.indices, error.lengths, error.limit) == ((1, 3), (51, 71), 40)
        scores, usage = model.score_solutions([asked[0], asked[2]])
        assert scores == [[1 / 3], [1 / 4]] and [u.positions for u in usage] == [4, 5]
        assert sum(map(len, toy.asked)) == 2
        with pytest.raises(SolutionTooLong):
            ServedTokenModel(client(address)).score([[1] * 50], [[0]])


def test_an_error_in_scoring_is_no_score(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    toy = Toy()
    with serve(lambda: served(toy)) as (address, _):
        # One request's fault costs the others nothing.
        response = post(address, text("q", "a"), text("bad", "a"), text("q", "aa"))
        assert response.status_code == 207
        assert [r["status"] for r in response.json()["results"]] == [200, 500, 200]
        assert response.json()["results"][1] == {"status": 500, "error": "ValueError: a bad one"}
        response = post(address, text("q", "a"), text("broken", "a"))
        assert response.status_code == 500
        assert {r["error"] for r in response.json()["results"]} == {"RuntimeError: out of memory"}
        assert "out of memory" in caplog.text
        with pytest.raises(ScoringFailed, match=r"status 500, RuntimeError: out of memory"):
            ServedTextModel(client(address)).score_solutions(
                [SteppedSolution(prompt="broken", steps=("a",))]
            )
        # An id beyond the vocabulary never gets to the model.
        response = post(address, {"token_ids": [1, 10], "step_ends": [1]})
        assert response.status_code == 422
        assert "holds 10" in response.json()["results"][0]["error"]
        assert post(address, text("q", "a")).status_code == 200
    with serve(lambda: served(None, token_model=Toy())) as (address, _):
        response = post(address, text("q", "a"))
        assert response.status_code == 422
        assert "is asked in" in response.json()["results"][0]["error"]


def test_a_full_queue_says_so_and_clients_wait(serve: Any) -> None:
    toy = Toy()
    toy.gate.clear()
    with serve(lambda: served(toy), max_waiting=3, batch_rows=2) as (address, _):
        with ThreadPoolExecutor(8) as threads:
            running = threads.submit(post, address, text("q", "a"))
            wait_until(lambda: len(toy.asked) == 1)
            waiting = threads.submit(post, address, *[text("q", "aa")] * 3)
            wait_until(lambda: httpx.get(f"{address}/health").json()["waiting"] == 3)
            refused = post(address, text("q", "aaa"))
            assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
            assert refused.json()["error"] == "3 requests wait, of 3 allowed"
            patient = threads.submit(
                ServedTextModel(client(address)).score_solutions,
                [SteppedSolution(prompt="q", steps=("aaa",))],
            )
            time.sleep(0.2)
            assert not patient.done()
            toy.gate.set()
            assert running.result().status_code == waiting.result().status_code == 200
            assert patient.result()[0] == [[1 / 3]]
        response = post(address, *[text("q", "a")] * 4)
        assert response.status_code == 413 and "may hold 3" in response.json()["error"]


def test_what_nobody_waits_for_is_not_computed(serve: Any) -> None:
    toy = Toy()
    toy.gate.clear()
    with serve(lambda: served(toy)) as (address, _), ThreadPoolExecutor(2) as threads:
        running = threads.submit(post, address, text("q", "a"))
        wait_until(lambda: len(toy.asked) == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/score", json={"requests": [text("gone", "a")]}, timeout=0.2)
        after = threads.submit(post, address, text("after", "a"))
        wait_until(lambda: httpx.get(f"{address}/health").json()["waiting"] == 2)
        time.sleep(0.1)
        toy.gate.set()
        assert running.result().status_code == after.result().status_code == 200
    assert [[s.prompt for s in batch] for batch in toy.asked] == [["q"], ["after"]]


def test_it_is_ready_once_the_model_is_loaded(serve: Any) -> None:
    loaded = threading.Event()

    def load() -> ServedModel:
        assert loaded.wait(10)
        return served(Toy())

    with serve(load) as (address, _):
        for response in (httpx.get(f"{address}/health"), post(address, text("q", "a"))):
            assert response.status_code == 503 and "Retry-After" in response.headers
            assert response.json()["error"] == "the reward model is being loaded"
        with pytest.raises(ServerUnavailable, match=r"for 0 s .*status 503: .*being loaded"):
            client(address, wait_seconds=0.0)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client, address)
            time.sleep(0.15)
            loaded.set()
            assert waiting.result().description.fingerprint == "f1"

    def fail() -> ServedModel:
        raise ValueError("no such folder")

    with serve(fail) as (address, ended):
        wait_until(lambda: bool(ended))
        assert str(ended[0]) == "no such folder"
        assert httpx.get(f"{address}/health").status_code == 503


def test_a_client_outlives_its_server_but_not_its_model(serve: Any) -> None:
    question = [SteppedSolution(prompt="q", steps=("aa",))]
    with serve(lambda: served(Toy())) as (address, _):
        model = ServedTextModel(client(address))
        assert model.score_solutions(question)[0] == [[0.5]]
    port = int(address.rpartition(":")[2])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(model.score_solutions, question)
        time.sleep(0.25)
        assert not waiting.done()
        with serve(lambda: served(Toy()), port=port):
            assert waiting.result()[0] == [[0.5]]
    with (
        serve(lambda: served(Toy(), fingerprint="f2"), port=port),
        pytest.raises(ServedModelChanged, match=r"served is toy with the fingerprint f2, not f1"),
    ):
        model.score_solutions(question)
    with (
        serve(lambda: served(Toy(), fingerprint="f2"), port=port),
        pytest.raises(ServedModelChanged, match=r"serves toy with the fingerprint f2, not f1"),
    ):
        client(address, fingerprint="f1")


def test_absence_beyond_the_time_allowed_is_an_error() -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match=rf"{address} did not .* 0.3 s .*ReadTimeout"):
            client(address, wait_seconds=0.3, timeout_seconds=0.2)
    with pytest.raises(ServerUnavailable, match=r"ConnectError"):
        client(address, wait_seconds=0.3)
    assert 0.6 < time.monotonic() - started < 5


def test_another_server_is_no_scoring_server(serve: Any) -> None:
    class Wrong(Toy):
        def score_solutions(
            self, solutions: Sequence[SteppedSolution]
        ) -> tuple[list[list[float]], list[ModelUsage]]:
            return [[0.5]] * len(solutions), [ModelUsage()] * len(solutions)

    with serve(lambda: served(Wrong())) as (address, _):
        with pytest.raises(ScoringFailed, match=r"is not a scoring server \(KeyError"):
            client(f"{address}/v1")
        with pytest.raises(ScoringFailed, match=r"gave 1 scores for 2 steps"):
            ServedTextModel(client(address)).score_solutions(
                [SteppedSolution(prompt="q", steps=("a", "b"))]
            )
    pages = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=pages.handle_request)
    thread.start()
    with pytest.raises(ScoringFailed, match=r"is not a scoring server: status 404, .*HTML"):
        client(f"http://127.0.0.1:{pages.server_port}")
    thread.join()
    pages.server_close()


def test_batches_are_bounded_in_tokens_and_first_come_first_served() -> None:
    async def run() -> list[list[int]]:
        toy = Toy()
        config = BatchingConfig(batch_rows=4, batch_tokens=10, linger_milliseconds=0, max_waiting=9)
        batches: list[list[int]] = []

        class Recorded:
            def answers(self, questions: Sequence[Any]) -> list[Any]:
                batches.append([len(q.token_ids) for q in questions])
                return served(toy).answers(questions)

        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher(Recorded(), config, threads)  # type: ignore[arg-type]
            lengths = [30, 4, 6, 1, 2, 2, 2, 2]
            answers = batcher.submit(
                [TokenSequence(token_ids=(1,) * n, step_ends=(0,)) for n in lengths]
            )
            with pytest.raises(QueueFull):
                batcher.submit([TokenSequence(token_ids=(1,), step_ends=(0,))] * 2)
            answers[3].cancel()
            task = asyncio.create_task(batcher.run())
            await asyncio.gather(*answers[:3], *answers[4:])
            assert batcher.waiting == 0 and batcher.answered == 7
            task.cancel()
        return batches

    assert asyncio.run(run()) == [[30], [4, 6], [2, 2, 2, 2]]


def test_the_first_request_waits_for_company() -> None:
    async def run(linger: float) -> list[int]:
        toy = Toy()
        config = BatchingConfig(linger_milliseconds=linger)
        with ThreadPoolExecutor(1) as threads:
            batcher = MicroBatcher(served(toy), config, threads)
            task = asyncio.create_task(batcher.run())
            answers = batcher.submit([SteppedSolution(prompt="q", steps=("a",))])
            await asyncio.sleep(0.05)
            answers += batcher.submit([SteppedSolution(prompt="q", steps=("b",))])
            await asyncio.gather(*answers)
            task.cancel()
        return [len(batch) for batch in toy.asked]

    assert asyncio.run(run(300)) == [2]
    assert asyncio.run(run(0)) == [1, 1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"server": "localhost:8100"}, r"server is 'localhost:8100'; it must have the form http"),
        ({"wait_seconds": -1.0}, r"wait_seconds is -1.0"),
        ({"concurrency": 0}, r"concurrency is 0"),
        ({"timeout_seconds": math.nan}, r"timeout_seconds is nan"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ServerConfig(**({"server": "http://x:1"} | fields))
    with pytest.raises(ValueError, match=r"batch_rows is 0"):
        BatchingConfig(batch_rows=0)
    with pytest.raises(ValueError, match=r"linger_milliseconds is -1"):
        BatchingConfig(linger_milliseconds=-1)
