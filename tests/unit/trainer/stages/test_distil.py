"""Distillation from a small real HTTP server: what is kept, counted, retried and resumed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.problems import read_demonstrations, write_problems
from data.tasks.countdown import make_problem
from data.thoughts import with_thought
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.distil import DistilConfig, TeacherUnavailable, run_distil

RIGHT = "12 * 3 = 36 | 4 7 36"
PROBLEMS = [make_problem((3, 4, 7, 12), 36), make_problem((3, 4, 7), 21), make_problem((2, 5), 10)]
# By the question, the message of each sample and why it ended.
MESSAGES: dict[str, list[tuple[dict[str, str], str]]] = {
    "3 4 7 12 -> 36": [
        ({"content": with_thought("a", "12 + 3 = 15 | 4 7 15")}, "stop"),
        ({"content": RIGHT, "reasoning_content": "12 times 3"}, "stop"),
        ({"content": with_thought("12 * 3", RIGHT)}, "stop"),
    ],
    "3 4 7 -> 21": [({"content": "3 * 7 = 21 | 4 21"}, "stop")] * 3,
    "2 5 -> 10": [({"content": with_thought("so long", "5 * 2 = 10 | 10")}, "length")] * 2
    + [({"content": "10"}, "stop")],
}


class Teacher:
    """A server with an OpenAI-compatible interface. It fails while `failing` says so."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.failing: list[int] = []  # statuses of the next replies
        self.limit = 10**9  # good replies until all are refused
        self.headers: list[str | None] = []
        teacher = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    status = teacher.failing.pop(0) if teacher.failing else 200
                    if len(teacher.bodies) >= teacher.limit:
                        status = 400
                    if status == 200:
                        teacher.bodies.append(body)
                        teacher.headers.append(self.headers.get("Authorization"))
                question = body["messages"][-1]["content"].removeprefix("Solve: ")
                message, reason = MESSAGES[question][body["seed"] - 7]
                reply = {
                    "choices": [{"message": message, "finish_reason": reason}],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
                }
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(reply).encode() if status == 200 else b"no")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    found = Teacher()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()


def config(teacher: Teacher, folder: Path, **changes: Any) -> DistilConfig:
    (folder / "data").mkdir(exist_ok=True)
    write_problems(folder / "data" / "train.jsonl", PROBLEMS)
    plain = DistilConfig(
        server=teacher.url, model="strong", data=str(folder / "data"), verifier="countdown",
        samples_per_problem=3, template="Solve: {question}", retries=0, retry_seconds=0.0,
        concurrency=2,
    )  # fmt: skip
    return replace(plain, **changes)


def run(settings: DistilConfig, folder: Path) -> Any:
    run_distil(RuntimeConfig(output_dir=str(folder), seed=7, wandb=False), settings)
    return read_manifest(folder)


def test_verified_answers_are_kept_and_all_are_counted(teacher: Teacher, tmp_path: Path) -> None:
    manifest = run(config(teacher, tmp_path, system_prompt="Think."), tmp_path / "out")
    [kept] = read_demonstrations(tmp_path / "out" / "demonstrations.jsonl")
    assert (kept.problem, kept.solution) == (PROBLEMS[0], with_thought("12 times 3", RIGHT))
    metrics = manifest["metrics"]
    assert {k: v for k, v in metrics.items() if k.startswith("answers/")} == {
        "answers/correct": 2, "answers/wrong": 1, "answers/no_thought": 4, "answers/cut_off": 2,
    }  # fmt: skip
    assert (metrics["answers"], metrics["problems_solved"], metrics["demonstrations"]) == (9, 1, 1)
    assert metrics["sampled_tokens"] == 45
    [policy, _] = manifest["usage"]["ledger"]
    assert (policy["prompt_tokens"], policy["generated_tokens"], policy["sequences"]) == (90, 45, 9)
    body = teacher.bodies[0]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("strong", 8192, 0.6)


def test_an_interrupted_run_asks_only_what_is_missing(teacher: Teacher, tmp_path: Path) -> None:
    settings = config(teacher, tmp_path, kept_per_problem=2)
    teacher.limit = 4
    with pytest.raises(TeacherUnavailable, match="status 400"):
        run(settings, tmp_path / "out")
    answered = len((tmp_path / "out" / "answers.jsonl").read_text().splitlines())
    assert 3 <= answered <= 4
    teacher.limit = 10**9
    run(settings, tmp_path / "out")
    assert len(teacher.bodies) == 9 + 4 - answered  # a reply that was under way is asked again
    run(settings, tmp_path / "whole")
    for name in ("demonstrations.jsonl",):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert len(read_demonstrations(tmp_path / "out" / "demonstrations.jsonl")) == 2


def test_overloads_are_retried(teacher: Teacher, tmp_path: Path) -> None:
    teacher.failing = [503, 429]
    run(config(teacher, tmp_path, retries=2, concurrency=1), tmp_path / "out")
    assert len(teacher.bodies) == 9


def test_the_key_comes_from_the_environment(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "secret")
    run(config(teacher, tmp_path, api_key_variable="TEACHER_KEY"), tmp_path / "out")
    assert set(teacher.headers) == {"Bearer secret"}
    assert "secret" not in (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server": "localhost"}, "must begin with http"),
        ({"template": "Solve"}, "must hold {question}"),
        ({"verifier": "countdow"}, "did you mean 'countdown'"),
        ({"api_key_variable": "NO_SUCH_KEY"}, "no such variable"),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_refused_values(
    teacher: Teacher, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(teacher, tmp_path, **changes)
