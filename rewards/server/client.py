"""A reward model behind a scoring server (scripts/serve_prm.py), used like a model in this process.

The score of a request does not depend on when it is sent. So a request without an answer is sent
again. The client waits for a server that is down, loading or overloaded. When a server stops during
a request, its work is not counted, and the request is not lost. Every request contains the
fingerprint of the model. So a server that restarts with another model refuses the request.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Protocol, cast

import httpx

from data.progress import BatchProgress
from data.types import ModelUsage, SteppedSolution
from rewards.base import SolutionTooLong, check_steps

IN_TEXT, IN_TOKEN_IDS = "text", "token_ids"  # the two forms of requests
REQUESTS_PER_POST = 64
UNAVAILABLE = (429, 502, 503, 504)  # overloaded or loading; a proxy also sends them without server
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts; each pause is twice as long
CONNECT_SECONDS = 10.0


class ServerUnavailable(RuntimeError):
    """The server did not answer within the waiting time."""


class ServedModelChanged(RuntimeError):
    """The server has another reward model than the expected one."""


class ScoringFailed(RuntimeError):
    """The server answered with an error, or with an answer that no scoring server gives."""


class Connection(Protocol):
    """How a server is asked: the fields that the configs of both kinds of reward server have."""

    @property
    def server(self) -> str: ...
    @property
    def wait_seconds(self) -> float: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def concurrency(self) -> int: ...


def check_connection(config: Connection) -> None:
    """Raises ValueError for something that is no address, and for times and a concurrency out of
    range."""
    if not is_address(config.server):
        raise ValueError(f"server is {config.server!r}; it must have the form http://host:port")
    if not (config.wait_seconds >= 0 and config.timeout_seconds > 0 and config.concurrency >= 1):
        raise ValueError(
            f"wait_seconds is {config.wait_seconds}, timeout_seconds is {config.timeout_seconds} "
            f"and concurrency is {config.concurrency}; the first must not be negative, the "
            "others must be positive"
        )


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """A reward model behind scripts/serve_prm.py."""

    server: str
    """Address of the server, as http://host:port."""
    in_text: bool = False
    """true: always send text, not token ids; for policies with another vocabulary."""
    wait_seconds: float = 300.0
    """Seconds to wait for a server that does not answer."""
    timeout_seconds: float = 120.0
    """Limit of one answer, in seconds."""
    concurrency: int = 8
    """Number of POSTs, each with up to 64 solutions, at the same time."""
    fingerprint: str = ""
    """Fingerprint that the served model must have; empty: any."""

    def __post_init__(self) -> None:
        check_connection(self)


@dataclass(frozen=True, kw_only=True)
class ServedDescription:
    """A server's description of its reward model.

    `asked_in` holds "text", "token_ids" or both. `whole_prompt` says which prompt the model reads
    (see `LoadedRewardModel`). `vocab_size` and `max_tokens` are 0 when the server does not know
    them. A POST may have at most `max_requests` requests.
    """

    reward_model: str
    convention: str
    fingerprint: str
    asked_in: tuple[str, ...]
    whole_prompt: bool
    vocab_size: int
    max_tokens: int
    max_requests: int


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One P(correct) per step, NaN for a missing judgement, and the usage."""

    scores: tuple[float, ...]
    usage: ModelUsage


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The reason why one request has no scores.

    `status` is an HTTP status: 413 for a request of `length` tokens when at most `limit` are
    allowed, 422 for a request that this model cannot score, 500 for an error in scoring.
    """

    status: int
    reason: str
    length: int = 0
    limit: int = 0


def is_address(name: str) -> bool:
    """Whether a reward model's name is the address of a server."""
    return name.startswith(("http://", "https://"))


class ScoringClient:
    """The connection to one server. The constructor waits for the server and reads the description
    of its model."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        try:
            self._client = httpx.Client(
                base_url=config.server,
                timeout=httpx.Timeout(config.timeout_seconds, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=config.concurrency),
            )
        except httpx.InvalidURL as error:
            raise ValueError(f"server is {config.server!r}: {error}") from None
        self.description = self._describe()

    def score(self, requests: Sequence[Mapping[str, Any]]) -> list[Scored | Refused]:
        """One answer per request, in the order of the requests.

        Raises ServerUnavailable and ServedModelChanged. Raises ScoringFailed when a request has no
        scores for any other reason than its length.
        """
        size = min(REQUESTS_PER_POST, self.description.max_requests)
        chunks = [requests[i : i + size] for i in range(0, len(requests), size)]
        with ThreadPoolExecutor(max_workers=self.config.concurrency) as threads:
            answers = threads.map(self._post, chunks)
            progress = BatchProgress("answers of the scoring server", len(requests))
            found: list[Scored | Refused] = []
            for chunk in answers:
                found += chunk
                progress.add(len(chunk))
        return found

    def _describe(self) -> ServedDescription:
        body = self._json(self._answer("GET", "/health"))
        try:
            known: dict[str, Any] = {f.name: body[f.name] for f in fields(ServedDescription)}
            known["asked_in"] = tuple(known["asked_in"])
            found = ServedDescription(**known)
        except (KeyError, TypeError) as error:
            raise ScoringFailed(
                f"{self.config.server} is not a scoring server ({error!r}): it answered "
                f"{str(body)[:200]}"
            ) from None
        if self.config.fingerprint not in ("", found.fingerprint):
            raise ServedModelChanged(
                f"{self.config.server} serves {found.reward_model} with the fingerprint "
                f"{found.fingerprint}, not {self.config.fingerprint}"
            )
        return found

    def _post(self, requests: Sequence[Mapping[str, Any]]) -> list[Scored | Refused]:
        asked = {"fingerprint": self.description.fingerprint, "requests": list(requests)}
        response = self._answer("POST", "/score", asked)
        body = self._json(response)
        if response.status_code == 409:
            raise ServedModelChanged(f"{self.config.server}: {body.get('error')}")
        results = cast("list[Any] | None", body.get("results"))
        if not isinstance(results, list) or len(results) != len(requests):
            raise ScoringFailed(
                f"{self.config.server} did not score: status {response.status_code}, "
                f"{str(body.get('error', body))[:500]}"
            )
        return [
            self._parsed(result, len(request.get("steps") or request["step_ends"]))
            for result, request in zip(results, requests, strict=True)
        ]

    def _parsed(self, result: Any, steps: int) -> Scored | Refused:
        try:
            if result["status"] == 413:
                return Refused(
                    status=413,
                    reason=result["error"],
                    length=int(result["length"]),
                    limit=int(result["limit"]),
                )
            if result["status"] != 200:
                raise ScoringFailed(
                    f"{self.config.server} did not score: status {result['status']}, "
                    f"{result['error']}"
                )
            scores = tuple(math.nan if s is None else float(s) for s in result["scores"])
            usage = ModelUsage(**result["usage"])
        except (KeyError, TypeError, ValueError) as error:
            raise ScoringFailed(
                f"{self.config.server} answered {str(result)[:200]}, which is not a valid result "
                f"({error!r})"
            ) from None
        if len(scores) != steps:
            raise ScoringFailed(f"{self.config.server} gave {len(scores)} scores for {steps} steps")
        return Scored(scores=scores, usage=usage)

    def _answer(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return first_answer(self._client, method, path, body, self.config.wait_seconds)[0]

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            body: Any = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ScoringFailed(
                f"{self.config.server} is not a scoring server: status {response.status_code}, "
                f"{response.text[:200]!r}"
            )
        return cast("dict[str, Any]", body)


def first_answer(
    client: httpx.Client,
    method: str,
    path: str,
    body: Any,
    wait_seconds: float,
    unavailable: Sequence[int] = UNAVAILABLE,
) -> tuple[httpx.Response, bool]:
    """The first answer with another status than those of `unavailable`, and whether an attempt
    failed before it. Raises ServerUnavailable after `wait_seconds` without such an answer."""
    give_up, pause = math.inf, FIRST_PAUSE
    while True:
        told = 0.0
        try:
            response = client.request(method, path, json=body)
        except httpx.TransportError as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if response.status_code not in unavailable:
                return response, give_up < math.inf
            problem = f"status {response.status_code}: {response.text[:200]!r}"
            told = _seconds(response.headers.get("Retry-After", ""))
        now = time.monotonic()
        give_up = min(give_up, now + wait_seconds)
        if now >= give_up:
            address = str(client.base_url).rstrip("/")
            raise ServerUnavailable(
                f"scoring server {address} did not answer for {wait_seconds:g} s (wait_seconds): "
                f"{problem}"
            )
        time.sleep(min(max(pause, told), give_up - now))
        pause = min(2 * pause, LONGEST_PAUSE)


class ServedTokenModel:
    """Implements `rewards.base.RewardModel`."""

    def __init__(self, client: ScoringClient) -> None:
        self.client = client

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Raises SolutionTooLong for sequences that are longer than the model's context, and the
        errors of `ScoringClient.score`."""
        answers = self.client.score(
            [
                {"token_ids": list(sequence), "step_ends": list(ends)}
                for sequence, ends in zip(sequences, step_ends, strict=True)
            ]
        )
        _check_lengths(answers)
        return _scores_and_usage(answers)


class ServedTextModel:
    """Implements `rewards.base.TextRewardModel`."""

    def __init__(self, client: ScoringClient) -> None:
        self.client = client
        self._paid: dict[SteppedSolution, Scored] = {}

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Raises SolutionTooLong for solutions that are too long, and the errors of
        `ScoringClient.score`.

        When some solutions are too long, the answers for the other solutions are kept. They are
        used in the next call, so the server does not score these solutions again.
        """
        check_steps(solutions)
        paid, self._paid = self._paid, {}
        unknown = [i for i, solution in enumerate(solutions) if solution not in paid]
        asked = [
            {"prompt": solutions[i].prompt, "steps": list(solutions[i].steps)} for i in unknown
        ]
        fresh = dict(zip(unknown, self.client.score(asked), strict=True))
        answers = [fresh.get(i) or paid[solution] for i, solution in enumerate(solutions)]
        try:
            _check_lengths(answers)
        except SolutionTooLong:
            for solution, answer in zip(solutions, answers, strict=True):
                if isinstance(answer, Scored):
                    self._paid[solution] = answer
            raise
        return _scores_and_usage(answers)


def _check_lengths(answers: Sequence[Scored | Refused]) -> None:
    refused = {i: answer for i, answer in enumerate(answers) if isinstance(answer, Refused)}
    if refused:
        first = next(iter(refused.values()))
        raise SolutionTooLong(
            f"{first.reason} ({len(refused)} of {len(answers)} are too long)",
            indices=tuple(refused),
            lengths=tuple(answer.length for answer in refused.values()),
            limit=first.limit,
        )


def _scores_and_usage(
    answers: Sequence[Scored | Refused],
) -> tuple[list[list[float]], list[ModelUsage]]:
    scored = [answer for answer in answers if isinstance(answer, Scored)]
    return [list(answer.scores) for answer in scored], [answer.usage for answer in scored]


def _seconds(text: str) -> float:
    """The number of seconds in a Retry-After header. 0 for a date and for no header."""
    return float(text) if text.isdecimal() else 0.0
