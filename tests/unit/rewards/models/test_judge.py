"""The judge against a real HTTP server, in a thread: what it asks, what it makes of the answers,
and what it does when the server fails."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from data.types import SteppedSolution
from rewards.models.llm_judge import JudgeConfig, JudgeRewardModel, JudgeUnavailable

Answer = tuple[int, Any]  # status and body


class Server:
    """Answers by `reply(body, n)`, n counting requests from 0; remembers bodies and headers."""

    def __init__(self) -> None:
        self.reply: Callable[[Any, int], Answer] = lambda body, n: (200, said({"yes": 0.5}))
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.headers.append((self.path, self.headers.get("Authorization")))
                status, answer = outer.reply(body, number)
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                with contextlib.suppress(ConnectionError):  # who asked may have given up
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"


def said(chances: dict[str, float], prompt_tokens: int = 7) -> Any:
    top = [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]
    first = {"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}
    return {
        "choices": [{"logprobs": {"content": [first]}}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1},
    }


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def judge(server: Server, **fields: Any) -> JudgeRewardModel:
    settings: dict[str, Any] = {"retry_seconds": 0.0, "timeout_seconds": 5.0} | fields
    return JudgeRewardModel(JudgeConfig(server=server.address, model="m", **settings))


PAIR = [
    SteppedSolution(prompt="Q1\n", steps=("a\n", "b\n")),
    SteppedSolution(prompt="Q2\n", steps=("c\n",)),
]


def test_answers_are_read_in_order_and_counted(server: Server) -> None:
    def reply(body: Any, n: int) -> Answer:
        text = body["messages"][0]["content"]
        time.sleep(0.05 if "Q1" in text and "b" not in text.split("Q1")[1][:40] else 0.0)
        if "Q2" in text:
            return 200, said({"Maybe": 0.9, "No": 0.02, " yes": 0.06, "YES": 0.02}, 30)
        return 200, said({"yes": 0.3, "no": 0.1} if "b" in text else {"yes": 0.9, "no": 0.1}, 10)

    server.reply = reply
    model = judge(server, question="{problem}|{steps}", active_parameters=3.0)
    scores, usage = model.score_solutions(PAIR)
    assert scores[0] == [pytest.approx(0.9), pytest.approx(0.75)]
    assert scores[1] == [pytest.approx(0.8)]  # 0.08 of 0.1, in three ways of writing
    assert [spent.prompt_tokens for spent in usage] == [20, 30]
    assert [spent.generated_tokens for spent in usage] == [2, 1]
    assert [spent.sequences for spent in usage] == [2, 1]
    assert [spent.flops for spent in usage] == [2 * 3 * 20, 2 * 3 * 30]
    asked = sorted(body["messages"][0]["content"] for body in server.bodies)
    assert asked == ["Q1|a", "Q1|a\nb", "Q2|c"]
    body = server.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0, 1, True)
    assert body["model"] == "m" and server.headers[0] == ("/v1/chat/completions", None)


def test_neither_yes_nor_no_is_no_score(server: Server) -> None:
    server.reply = lambda body, n: (200, said({"Hm": 0.9, "yesterday": 0.1}))
    [[score]], _ = judge(server).score_solutions(PAIR[1:])
    assert math.isnan(score)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(server: Server, status: int) -> None:
    server.reply = lambda body, n: (status, "busy") if n < 2 else (200, said({"yes": 1.0}))
    assert judge(server, retries=2).score_solutions(PAIR[1:])[0] == [[1.0]]
    assert len(server.bodies) == 3


def test_a_lasting_failure_names_the_server(server: Server) -> None:
    server.reply = lambda body, n: (503, "still busy")
    with pytest.raises(
        JudgeUnavailable, match=rf"{server.address} .*attempts: 3\).*503.*still busy"
    ):
        judge(server, retries=2).score_solutions(PAIR[1:])
    assert len(server.bodies) == 3
    # What no repetition mends is not repeated.
    server.reply = lambda body, n: (404, "no such model")
    with pytest.raises(JudgeUnavailable, match=r"attempts: 1\).*404.*no such model"):
        judge(server, retries=2).score_solutions(PAIR[1:])
    assert len(server.bodies) == 4


def test_a_slow_server_times_out(server: Server) -> None:
    def slow(body: Any, n: int) -> Answer:
        time.sleep(0.3 if n == 0 else 0.0)
        return 200, said({"no": 1.0})

    server.reply = slow
    assert judge(server, timeout_seconds=0.1, retries=1).score_solutions(PAIR[1:])[0] == [[0.0]]
    server.bodies.clear()
    with pytest.raises(JudgeUnavailable, match=r"ReadTimeout"):
        judge(server, timeout_seconds=0.1, retries=0).score_solutions(PAIR[1:])


def test_answers_without_logprobs_are_no_zero(server: Server) -> None:
    server.reply = lambda body, n: (200, {"choices": [{"message": {"content": "yes"}}]})
    with pytest.raises(JudgeUnavailable, match=r"gave no log-probabilities"):
        judge(server).score_solutions(PAIR[1:])
    server.reply = lambda body, n: (200, "<html>")
    with pytest.raises(JudgeUnavailable, match=r"the answer is not JSON: '<html>'"):
        judge(server).score_solutions(PAIR[1:])


def test_nobody_there_is_said() -> None:
    settings = JudgeConfig(server="http://127.0.0.1:9", model="m", retries=1, retry_seconds=0)
    with pytest.raises(JudgeUnavailable, match=r"127\.0\.0\.1:9 .*attempts: 2\): ConnectError"):
        JudgeRewardModel(settings).score_solutions(PAIR[1:])


def test_keys_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "k1")
    judge(server, api_key_variable="JUDGE_KEY").score_solutions(PAIR[1:])
    assert server.headers[0][1] == "Bearer k1"


@pytest.mark.parametrize(
    ("fields", "said_"),
    [
        ({"server": "localhost:8000"}, r"server is 'localhost:8000'; it must begin with http"),
        ({"question": "Right?"}, r"it must hold \{problem\}"),
        ({"yes": "No"}, r"they must be two words"),
        ({"retries": -1}, r"retries is -1"),
        ({"timeout_seconds": 0.0}, r"timeout_seconds is 0.0"),
        ({"api_key_variable": "NOT_SET_ANYWHERE"}, r"the environment has no such variable"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said_: str) -> None:
    with pytest.raises(ValueError, match=said_):
        JudgeConfig(**({"server": "http://x/v1", "model": "m"} | fields))
