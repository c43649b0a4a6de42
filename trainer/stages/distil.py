"""The distillation stage asks a stronger model for long thoughts, and keeps those that end in a
verified answer. Its folder is a data folder for SFT."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from data.formats.long_thoughts import LongThought, thought_and_answer
from data.problems import write_demonstrations
from data.prompts import question_of
from data.row_files import read_whole_lines
from data.slices import Choice
from data.types import Demonstration, ModelUsage, Outcome, Problem, Usage
from rewards.verifiers.by_name import VERIFIERS, check_verifier
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import is_main_process
from trainer.runtime.progress import Progress
from trainer.runtime.stage import run_stage

RETRIED = (408, 409, 429, 500, 502, 503, 504)
ANSWERS = "answers.jsonl"


class TeacherUnavailable(RuntimeError):
    """The server gave no valid answer in all attempts. The stage goes on where it stopped."""


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """Which problems are asked, and how. An answer is kept when it has a thought, when the server
    says that it is finished, and when the verifier calls its answer part correct."""

    server: str
    """Address of the OpenAI-compatible server, up to /v1."""
    model: str
    """Name of the stronger model on the server."""
    data: str
    """Folder of the data stage."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    split: str = "train"
    """Split whose problems are asked: train, validation or test."""
    skip: int = 0
    """Problems left out at the start of the split."""
    slice: str | None = None
    """Named slice of the data stage's problems, in place of split and skip; null: none."""
    num_problems: int = 1000
    """Problems asked."""
    samples_per_problem: int = 1
    """Answers per problem."""
    kept_per_problem: int = 1
    """Verified answers kept per problem, the first ones."""
    system_prompt: str = ""
    """System turn before every question; empty: none."""
    template: str = "{question}"
    """User's turn, with {question} in it."""
    temperature: float = 0.6
    """Sampling temperature."""
    max_tokens: int = 8192
    """Limit of an answer with its thought, in tokens."""
    timeout_seconds: float = 600.0
    """Limit of one request, in seconds."""
    retries: int = 4
    """Retries of a request after a time-out, an overload or an error of the server."""
    retry_seconds: float = 1.0
    """Seconds before the first retry; each further wait is twice as long."""
    concurrency: int = 16
    """Number of requests at the same time."""
    api_key_variable: str = ""
    """Environment variable that holds the server's API key; empty: no key."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if not self.server.startswith(("http://", "https://")):
            raise ValueError(f"server is {self.server!r}; it must begin with http:// or https://")
        if "{question}" not in self.template:
            raise ValueError(f"template is {self.template!r}; it must hold {{question}}")
        for name in ("samples_per_problem", "kept_per_problem", "max_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.retries < 0 or not self.timeout_seconds > 0 or not self.retry_seconds >= 0:
            raise ValueError(
                f"retries is {self.retries}, timeout_seconds is {self.timeout_seconds} and "
                f"retry_seconds is {self.retry_seconds}; they must be at least 0, above 0 and at "
                "least 0"
            )
        if self.api_key_variable and self.api_key_variable not in os.environ:
            raise ValueError(
                f"api_key_variable is {self.api_key_variable!r}; the environment has no such "
                "variable"
            )


@dataclass(frozen=True, kw_only=True)
class TeacherAnswer:
    """One answer: its thought and answer part if it has both, and what became of it. `verdict` is
    correct, wrong, unverifiable, cut_off (the token limit was reached) or no_thought."""

    problem: str
    sample: int
    verdict: str
    reason: str
    thought: str
    answer: str
    prompt_tokens: int
    completion_tokens: int


def run_distil(runtime: RuntimeConfig, config: DistilConfig) -> None:
    """Write answers.jsonl, a line per answer as soon as it comes, and demonstrations.jsonl with the
    verified ones in the order of the problems. An interrupted stage asks only what is missing.

    Raises TeacherUnavailable when the server does not answer.
    """
    inputs: dict[str, str | None] = {"data": config.data}
    with run_stage("distil", runtime, [config], inputs) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        choice = Choice(
            split=config.split, skip=config.skip, size=config.num_problems, name=config.slice
        )
        problems = choice.read(config.data)
        answers = _ask_all(config, problems, folder / ANSWERS, runtime.seed)
        kept = _kept(config, problems, answers)
        write_demonstrations(folder / "demonstrations.jsonl", kept)
        usage = ModelUsage(
            prompt_tokens=sum(a.prompt_tokens for a in answers),
            generated_tokens=sum(a.completion_tokens for a in answers),
            sequences=len(answers),
        )
        record.search(Usage(policy=usage))
        verdicts = Counter(answer.verdict for answer in answers)
        solved = {a.problem for a in answers if a.verdict == Outcome.CORRECT.value}
        record.metrics |= {f"answers/{verdict}": n for verdict, n in sorted(verdicts.items())}
        record.metrics |= {
            "problems": len(problems),
            "problems_solved": len(solved),
            "answers": len(answers),
            "demonstrations": len(kept),
            "sampled_tokens": usage.generated_tokens,
        }


def _ask_all(
    config: DistilConfig, problems: Sequence[Problem], path: Path, seed: int
) -> list[TeacherAnswer]:
    """The answers of the journal at `path`, and those that are missing from it."""
    done = {(a.problem, a.sample): a for a in map(_answer_of_line, read_whole_lines(path))}
    waiting = iter(
        [
            (problem, sample)
            for problem in problems
            for sample in range(config.samples_per_problem)
            if (problem.id, sample) not in done
        ]
    )
    verifier = VERIFIERS[config.verifier]()
    total = len(problems) * config.samples_per_problem
    with (
        _Teacher(config, seed) as teacher,
        path.open("a", encoding="utf-8") as journal,
        Progress("the teacher's answers", total - len(done), "answers") as progress,
    ):
        for problem, sample, said in teacher.answers(waiting):
            answer = _judged(problem, sample, said, verifier)
            journal.write(json.dumps(vars(answer)) + "\n")
            journal.flush()
            done[problem.id, sample] = answer
            progress.advance()
    return [done[p.id, s] for p in problems for s in range(config.samples_per_problem)]


def _answer_of_line(line: str) -> TeacherAnswer:
    return TeacherAnswer(**json.loads(line))


def _judged(problem: Problem, sample: int, said: Mapping[str, Any], verifier: Any) -> TeacherAnswer:
    """The answer in a server's reply. Raises TeacherUnavailable for a reply without a choice."""
    try:
        choice = said["choices"][0]
        message = cast("Mapping[str, object]", choice["message"])
        spent: Mapping[str, Any] = said.get("usage") or {}
        tokens = (int(spent.get("prompt_tokens", 0)), int(spent.get("completion_tokens", 0)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise TeacherUnavailable(
            f"the server gave no message ({error!r}); it answered {str(said)[:200]}"
        ) from None
    thought = answer = reason = ""
    if choice.get("finish_reason") not in (None, "stop"):
        verdict = "cut_off"
        reason = f"finish_reason is {choice['finish_reason']!r}"
    else:
        try:
            thought, answer = thought_and_answer(message)
        except ValueError as error:
            verdict, reason = "no_thought", str(error)
        else:
            judged = verifier.verify(problem, answer)
            verdict, reason = judged.outcome.value, judged.reason
    return TeacherAnswer(
        problem=problem.id,
        sample=sample,
        verdict=verdict,
        reason=reason,
        thought=thought,
        answer=answer,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )


def _kept(
    config: DistilConfig, problems: Sequence[Problem], answers: Sequence[TeacherAnswer]
) -> list[Demonstration]:
    by_problem: dict[str, list[TeacherAnswer]] = {}
    for answer in answers:
        if answer.verdict == Outcome.CORRECT.value:
            by_problem.setdefault(answer.problem, []).append(answer)
    return [
        Demonstration(
            problem=problem,
            solution=LongThought(
                question="", thought=a.thought, answer=a.answer, gold=problem.answer
            ).solution(problem.prompt),
        )
        for problem in problems
        for a in by_problem.get(problem.id, [])[: config.kept_per_problem]
    ]


class _Teacher:
    """The server, and the requests that are under way."""

    def __init__(self, config: DistilConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        key = os.environ.get(config.api_key_variable, "")
        self._client = httpx.Client(
            timeout=config.timeout_seconds,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=config.concurrency),
        )
        self._threads = ThreadPoolExecutor(max_workers=config.concurrency)

    def __enter__(self) -> _Teacher:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def answers(
        self, waiting: Iterator[tuple[Problem, int]]
    ) -> Iterator[tuple[Problem, int, Mapping[str, Any]]]:
        """The replies as they come. At most `concurrency` requests are under way."""
        running: dict[Future[Mapping[str, Any]], tuple[Problem, int]] = {}
        while True:
            while len(running) < self._config.concurrency and (item := next(waiting, None)):
                running[self._threads.submit(self._ask, *item)] = item
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield (*running.pop(future), future.result())

    def _ask(self, problem: Problem, sample: int) -> Mapping[str, Any]:
        config = self._config
        question = config.template.replace("{question}", question_of(problem.prompt, None).strip())
        system = [{"role": "system", "content": config.system_prompt}]
        return self._post(
            {
                "model": config.model,
                "messages": [
                    *(system if config.system_prompt else []),
                    {"role": "user", "content": question},
                ],
                "temperature": config.temperature,
                "max_tokens": config.max_tokens,
                "seed": self._seed + sample,
            }
        )

    def _post(self, body: dict[str, Any]) -> Mapping[str, Any]:
        """The reply as JSON. Raises TeacherUnavailable after the last attempt."""
        url = self._config.server.rstrip("/") + "/chat/completions"
        problem = ""
        for attempt in range(self._config.retries + 1):
            if attempt:
                time.sleep(self._config.retry_seconds * 2 ** (attempt - 1))
            try:
                response = self._client.post(url, json=body)
                if response.is_success:
                    return response.json()
            except (httpx.TransportError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            problem = f"status {response.status_code}: {response.text[:200]!r}"
            if response.status_code not in RETRIED:
                break
        raise TeacherUnavailable(
            f"server {self._config.server} (model {self._config.model!r}) did not answer: {problem}"
        )
