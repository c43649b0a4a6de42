"""A reward model of this project behind a vLLM server, asked with token ids.

vLLM serves our folders as they are. A server is started for one of two ways of reading:

- `classify` gives the score at the last token of a sequence, and takes what it knows of the
  sequence's beginning from its cache. Each step is asked for once, as the sequence that ends with
  it, so a search that grows a path pays for the new step alone.
- `token_classify` gives the score at every token of a sequence and never reads the cache: one
  request for all steps of a solution.

The usage counts one pass over each sequence, as for the model in this process, whatever the server
remembers. The server of `classify` keeps prefixes, so a search counts the positions that it repeats
(`ModelUsage.repeated_positions`).
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import httpx

from data.progress import BatchProgress
from data.types import ModelUsage
from rewards.base import SolutionTooLong
from rewards.models.position_reader import check_step_ends
from rewards.server.client import (
    CONNECT_SECONDS,
    UNAVAILABLE,
    ScoringFailed,
    ServedModelChanged,
    check_connection,
    first_answer,
)

PATHS = {"classify": "/classify", "token_classify": "/pooling"}
NO_SERVER = (*UNAVAILABLE, 500)  # the status of a vLLM server whose engine died
SEQUENCES_PER_POST = 16
MOST_INVALID = 3  # answers without scores to one POST
KNOWN_SCORES = 200_000  # scores of steps that are kept, by the sequence that ends with them
KEEP_ALIVE_SECONDS = 4.0  # uvicorn closes an idle connection after 5
LARGEST_GAP = 0.05  # mean distance of a server's scores from the model's; bf16 is within 0.01

Rows = list[list[float]]  # of each sequence: the difference of its two logits, per position


@dataclass(frozen=True, kw_only=True)
class VLLMRewardConfig:
    """A model of this project behind a vLLM server."""

    server: str
    """Address of the server, as http://host:port."""
    model: str
    """Folder or hub id of the model, as the server has it."""
    task: str = "classify"
    """What the server was started for: classify (keeps prefixes) or token_classify."""
    wait_seconds: float = 300.0
    """Seconds to wait for a server that does not answer."""
    timeout_seconds: float = 120.0
    """Limit of one answer, in seconds."""
    concurrency: int = 16
    """Number of POSTs, each with up to 16 sequences, at the same time."""

    def __post_init__(self) -> None:
        check_connection(self)
        if self.task not in PATHS:
            raise ValueError(f"task is {self.task!r}; allowed: {', '.join(PATHS)}")


@dataclass(frozen=True, kw_only=True)
class KnownScores:
    """What the model itself says at the end of some sequences: a server must say the same."""

    sequences: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]


class VLLMRewardModel:
    """Implements `rewards.base.RewardModel`. `temperature` and `bias` are the model's calibration,
    and `flops(start, end)` gives the FLOPs of one sequence's forward pass.

    The constructor waits for the server. Raises ValueError for a server without this model, and
    ServedModelChanged for one with other weights; after every failure the weights are compared
    again.
    """

    def __init__(
        self,
        config: VLLMRewardConfig,
        *,
        temperature: float,
        bias: float,
        flops: Callable[[int, int], float],
        known: KnownScores,
    ) -> None:
        self.config = config
        self.temperature, self.bias = temperature, bias
        self._flops, self._compared = flops, known
        try:
            self._client = httpx.Client(
                base_url=config.server,
                timeout=httpx.Timeout(config.timeout_seconds, connect=CONNECT_SECONDS),
                limits=httpx.Limits(
                    max_connections=config.concurrency, keepalive_expiry=KEEP_ALIVE_SECONDS
                ),
            )
        except httpx.InvalidURL as error:
            raise ValueError(f"server is {config.server!r}: {error}") from None
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self.model_id, self.max_context = self._served()
        self._compare()

    def prefix_flops(self, length: int) -> float:
        return self._flops(0, length) if self.config.task == "classify" else 0.0

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Raises ValueError when a sequence has no step end, or one outside the sequence,
        SolutionTooLong, ServerUnavailable, ServedModelChanged, and ScoringFailed for answers that
        hold no scores."""
        check_step_ends(sequences, step_ends)
        self._check_lengths(sequences)
        if self.config.task == "classify":
            scores = self._of_prefixes(sequences, step_ends)
        else:
            rows = self._ask(sequences)
            scores = [
                [self._score(row[end]) for end in ends]
                for row, ends in zip(rows, step_ends, strict=True)
            ]
        return scores, [
            ModelUsage(
                prompt_tokens=len(s), positions=len(s), sequences=1, flops=self._flops(0, len(s))
            )
            for s in sequences
        ]

    def _check_lengths(self, sequences: Sequence[Sequence[int]]) -> None:
        limit = self.max_context
        long = {i: len(s) for i, s in enumerate(sequences) if 0 < limit < len(s)}
        if long:
            raise SolutionTooLong(
                f"{max(long.values())} tokens are more than the {limit} of the server "
                f"{self.config.server} ({len(long)} of {len(sequences)} are too long): start it "
                "with a larger --max-model-len",
                indices=tuple(long),
                lengths=tuple(long.values()),
                limit=limit,
            )

    def _of_prefixes(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Each sequence that ends with a step is asked for once, the short ones first, so that the
        longer ones find them in the server's cache."""
        keys = [
            [_key(sequence[: end + 1]) for end in ends]
            for sequence, ends in zip(sequences, step_ends, strict=True)
        ]
        new = {
            key: sequence[: end + 1]
            for sequence, ends, of_row in zip(sequences, step_ends, keys, strict=True)
            for end, key in zip(ends, of_row, strict=True)
            if key not in self._known
        }
        order = sorted(new, key=lambda key: len(new[key]))
        rows = self._ask([new[key] for key in order])
        self._known |= {
            key: self._score(row[-1]) for key, row in zip(order, rows, strict=True)
        }  # the oldest ones go only now: this call needs them
        scores = [[self._known[key] for key in of_row] for of_row in keys]
        while len(self._known) > KNOWN_SCORES:
            self._known.popitem(last=False)
        return scores

    def _ask(self, sequences: Sequence[Sequence[int]]) -> Rows:
        """The differences of the logits: at every token, or at the last one alone."""
        progress = BatchProgress("scored sequences", len(sequences))
        found: Rows = []
        with ThreadPoolExecutor(max_workers=self.config.concurrency) as threads:
            for rows in threads.map(self._checked_post, _chunks(sequences)):
                found += rows
                progress.add(len(rows))
        return found

    def _checked_post(self, sequences: Sequence[Sequence[int]]) -> Rows:
        rows, failed = self._post(sequences)
        if failed:  # perhaps another server has answered
            self._compare()
        return rows

    def _compare(self) -> None:
        """Raises ServedModelChanged for a server whose scores are not those of the model."""
        rows, _ = self._post(self._compared.sequences)
        found = [self._score(row[-1]) for row in rows]
        pairs = zip(found, self._compared.scores, strict=True)
        gap = math.fsum(abs(a - b) for a, b in pairs) / len(found)
        if not gap <= LARGEST_GAP:
            raise ServedModelChanged(
                f"the server {self.config.server} has other weights than {self.config.model!r}: "
                f"their scores are {gap:.2g} apart (at most {LARGEST_GAP:g}); start it again with "
                "this model"
            )

    def _post(self, sequences: Sequence[Sequence[int]]) -> tuple[Rows, bool]:
        """The answer to one POST, and whether a failure came before it."""
        path, task = PATHS[self.config.task], self.config.task
        body: dict[str, Any] = {
            "model": self.model_id,
            "input": [list(s) for s in sequences],
            "use_activation": False,  # logits
            "add_special_tokens": False,
        }
        if task == "token_classify":
            body |= {"task": task, "encoding_format": "float"}
        failed, said = False, ""
        for _ in range(MOST_INVALID):
            response, unanswered = first_answer(
                self._client, "POST", path, body, self.config.wait_seconds, NO_SERVER
            )
            failed = failed or unanswered
            try:
                return self._rows(response, [len(s) for s in sequences]), failed
            except (ValueError, KeyError, TypeError, IndexError) as error:
                said = f"({error!r}): status {response.status_code}, {response.text[:300]!r}"
            if response.status_code != 200:
                break
            failed = True
        raise ScoringFailed(f"{self.config.server} gave no scores of {task} {said}")

    def _rows(self, response: httpx.Response, lengths: Sequence[int]) -> Rows:
        """Raises ValueError, KeyError, TypeError and IndexError for an answer without scores."""
        data = sorted(response.json()["data"], key=lambda row: row["index"])
        every = self.config.task == "token_classify"
        pairs = [row["data"] if every else [row["probs"]] for row in data]
        rows = [[float(pair[1]) - float(pair[0]) for pair in of_row] for of_row in pairs]
        expected = list(lengths) if every else [1] * len(lengths)
        if [len(row) for row in rows] != expected:
            raise ValueError(f"{[len(row) for row in rows]} scores; there must be {expected}")
        if not all(math.isfinite(value) for row in rows for value in row):
            raise ValueError("a score that is no number")
        return rows

    def _served(self) -> tuple[str, int]:
        """The name that the server gives the model, and its context in tokens."""
        wait, name = self.config.wait_seconds, self.config.model
        response, _ = first_answer(self._client, "GET", "/v1/models", None, wait, NO_SERVER)
        try:
            models = cast("list[dict[str, Any]]", response.json()["data"])
            named = [m for m in models if name in (m["id"], m.get("root"))]
            served = ", ".join(repr(m["id"]) for m in models)
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self.config.server} is no vLLM server: {response.text[:200]!r}"
            ) from None
        if not named:
            raise ValueError(
                f"the server {self.config.server} serves {served}, not {name!r}: start it with "
                f"--model {name} or --served-model-name {name}"
            )
        return str(named[0]["id"]), int(named[0].get("max_model_len") or 0)

    def _score(self, logit: float) -> float:
        """P(correct) = sigmoid(logit / T + b)."""
        value = logit / self.temperature + self.bias
        return 1 / (1 + math.exp(-value)) if value > 0 else 1 - 1 / (1 + math.exp(value))


def _key(sequence: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("q", sequence).tobytes(), digest_size=16).digest()


def _chunks(sequences: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    left = iter(sequences)
    while chunk := list(islice(left, SEQUENCES_PER_POST)):
        yield chunk
