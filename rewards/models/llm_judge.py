"""A language model behind an OpenAI-compatible server as a reward model.

After every step, the judge answers a question: is everything right so far? The request asks for one
token at temperature 0 with log-probabilities (`/chat/completions` with `logprobs` and
`top_logprobs`, which vLLM, SGLang, llama.cpp and OpenAI support). The score is P(correct) =
P(yes) / (P(yes) + P(no)). Each probability is summed over the spellings of the word among the
tokens that the server returns. When the server returns neither word, the score is NaN and not 0,
because a missing judgement is not a bad one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from data.progress import BatchProgress
from data.types import ModelUsage, SteppedSolution
from rewards.base import check_steps
from rewards.models.questions import QUESTION, check_question, filled_question

TOP_LOGPROBS = 20  # the largest number that OpenAI's interface allows
RETRIED = (408, 409, 429, 500, 502, 503, 504)


class JudgeUnavailable(RuntimeError):
    """The server gave no valid answer in all attempts."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A language model behind an OpenAI-compatible server that judges steps."""

    server: str
    """Address of the server, up to /v1."""
    model: str
    """Name of the model on the server."""
    question: str = QUESTION
    """Question about every step; it holds {problem} and {steps}."""
    yes: str = "yes"
    """Answer that means correct."""
    no: str = "no"
    """Answer that means wrong."""
    timeout_seconds: float = 60.0
    """Limit of one request, in seconds."""
    retries: int = 4
    """Retries of a request after a time-out, an overload or an error of the server."""
    retry_seconds: float = 1.0
    """Seconds before the first retry; each further wait is twice as long."""
    concurrency: int = 16
    """Number of requests at the same time."""
    api_key_variable: str = ""
    """Environment variable that holds the server's API key; empty: no key."""
    active_parameters: float = 0.0
    """Parameters used per token, which cost 2 FLOPs each; 0: FLOPs are not counted."""

    def __post_init__(self) -> None:
        if not self.server.startswith(("http://", "https://")):
            raise ValueError(f"server is {self.server!r}; it must begin with http:// or https://")
        check_question(self.question)
        if _plain(self.yes) == _plain(self.no) or not _plain(self.yes) or not _plain(self.no):
            raise ValueError(f"yes is {self.yes!r} and no is {self.no!r}; they must be two words")
        if self.retries < 0 or self.concurrency < 1:
            raise ValueError(
                f"retries is {self.retries} and concurrency is {self.concurrency}; they must be at "
                "least 0 and 1"
            )
        if not (self.timeout_seconds > 0 and self.retry_seconds >= 0):
            raise ValueError(
                f"timeout_seconds is {self.timeout_seconds} and retry_seconds is "
                f"{self.retry_seconds}; the first must be positive, the second not negative"
            )
        if self.api_key_variable and self.api_key_variable not in os.environ:
            raise ValueError(
                f"api_key_variable is {self.api_key_variable!r}; the environment has no such "
                "variable"
            )


class JudgeRewardModel:
    """Implements `rewards.base.TextRewardModel`.

    Scoring raises JudgeUnavailable when the server is not available or gives no valid answer. The
    message names the server. A search that ends with this error can continue from its journal.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        headers: dict[str, str] = {}
        if config.api_key_variable:
            headers["Authorization"] = f"Bearer {os.environ[config.api_key_variable]}"
        self._client = httpx.Client(
            timeout=config.timeout_seconds,
            headers=headers,
            limits=httpx.Limits(max_connections=config.concurrency),
        )
        self._url = config.server.rstrip("/") + "/chat/completions"

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        check_steps(solutions)
        questions = [
            filled_question(self.config.question, solution, step)
            for solution in solutions
            for step in range(len(solution.steps))
        ]
        with ThreadPoolExecutor(max_workers=self.config.concurrency) as threads:
            progress = BatchProgress("answers of the judge", len(questions))
            answers: list[tuple[float, ModelUsage]] = []
            for answer in threads.map(self._ask, questions):
                answers.append(answer)
                progress.add(1)
        scores: list[list[float]] = []
        usage: list[ModelUsage] = []
        start = 0
        for solution in solutions:
            of_solution = answers[start : start + len(solution.steps)]
            start += len(solution.steps)
            scores.append([score for score, _ in of_solution])
            usage.append(sum((spent for _, spent in of_solution), ModelUsage()))
        return scores, usage

    def _ask(self, question: str) -> tuple[float, ModelUsage]:
        answer = self._post(
            {
                "model": self.config.model,
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": 1,
                "logprobs": True,
                "top_logprobs": TOP_LOGPROBS,
            }
        )
        try:
            [first] = answer["choices"][0]["logprobs"]["content"]
            tokens = [(str(t["token"]), float(t["logprob"])) for t in first["top_logprobs"]]
            spent: Any = answer.get("usage") or {}
            prompt = int(spent.get("prompt_tokens", 0))
            generated = int(spent.get("completion_tokens", 1))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise JudgeUnavailable(
                f"server {self.config.server} gave no log-probabilities of one token ({error!r}); "
                f"it answered {str(answer)[:200]}"
            ) from None
        # The one generated token is never fed back, so the positions are those of the prompt.
        usage = ModelUsage(
            prompt_tokens=prompt,
            generated_tokens=generated,
            positions=prompt,
            sequences=1,
            flops=2.0 * self.config.active_parameters * prompt,
        )
        return self._probability(tokens), usage

    def _probability(self, tokens: Sequence[tuple[str, float]]) -> float:
        sums = {_plain(self.config.yes): 0.0, _plain(self.config.no): 0.0}
        for token, logprob in tokens:
            if _plain(token) in sums:
                sums[_plain(token)] += math.exp(logprob)
        yes, no = sums.values()
        return yes / (yes + no) if yes + no > 0 else math.nan

    def _post(self, body: dict[str, Any]) -> Any:
        """The server's answer as JSON. Raises JudgeUnavailable after the last attempt."""
        problem, attempt = "", 0
        for attempt in range(1, self.config.retries + 2):
            if attempt > 1:
                time.sleep(self.config.retry_seconds * 2 ** (attempt - 2))
            try:
                response = self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                try:
                    return response.json()
                except ValueError:
                    problem = f"the answer is not JSON: {response.text[:200]!r}"
                    break
            problem = f"status {response.status_code}: {response.text[:200]!r}"
            if response.status_code not in RETRIED:
                break
        raise JudgeUnavailable(
            f"server {self.config.server} (model {self.config.model!r}) did not answer "
            f"(attempts: {attempt}): {problem}"
        )


def _plain(word: str) -> str:
    """A word in the form in which words are compared: " Yes", "yes" and "YES" become the same."""
    return word.strip().strip("▁Ġ.").casefold()
