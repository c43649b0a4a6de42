"""The calls that a search waits for, and the journal of those that have an answer.

After a crash the same strategies start again, and the journal answers the calls that it holds. Each
search then continues in the middle of its tree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data.row_files import read_whole_lines
from data.types import ModelUsage, Sample, ServedTokens, StopReason, TokenDraws
from search.base import ChoiceResult, SampleResult, ScoreResult

Results = list[SampleResult] | list[ScoreResult] | list[ChoiceResult]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that a coroutine waits for. `await` gives the call to the batcher and returns the
    results."""

    kind: str  # "sample", "score", "judge" or "choose"
    requests: tuple[Any, ...]

    def fingerprint(self) -> str:
        text = f"{self.kind}{self.requests!r}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def __await__(self) -> Generator[Call, Any, Any]:
        return (yield self)


class Journal:
    """A file of the calls that have an answer already, one JSON line per call.

    The key of a line is (problem id, call number). A line also holds a hash of the requests. The
    journal does not answer a call with other requests, which can happen when a deadline changed the
    course of the search.

    When a process was killed while it wrote, the last line is incomplete. It is cut off when the
    file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, int], tuple[str, Results]] = {}
        for line in read_whole_lines(path):
            row = json.loads(line)
            results = [_result_from_json(item) for item in row["results"]]
            answer = (str(row["asked"]), cast("Results", results))
            self._known[row["problem"], row["call"]] = answer
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def get(self, problem_id: str, number: int, call: Call) -> Results | None:
        """The results of a call, or None when the journal has no answer to these requests."""
        asked, results = self._known.get((problem_id, number), ("", None))
        return results if asked == call.fingerprint() else None

    def add(self, answers: Sequence[tuple[str, int, Call, Results]]) -> None:
        """Append the answers and flush the file, so that they survive a kill of the process."""
        for problem_id, number, call, results in answers:
            row = {
                "problem": problem_id,
                "call": number,
                "asked": call.fingerprint(),
                "results": [_result_to_json(result) for result in results],
            }
            self._file.write(json.dumps(row, default=vars, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _draws_from_json(row: dict[str, list[float]] | None) -> TokenDraws | None:
    return None if row is None else TokenDraws(**{key: tuple(row[key]) for key in row})


def _result_to_json(result: SampleResult | ScoreResult | ChoiceResult) -> dict[str, Any]:
    """The fields of a result. `json.dumps` with `default=vars` writes the dataclasses in them:
    `dataclasses.asdict` would copy every token, a tenth of a search's time."""
    return {k: value for k, value in vars(result).items() if k != "served" or value is not None}


def _result_from_json(row: dict[str, Any]) -> SampleResult | ScoreResult | ChoiceResult:
    usage = ModelUsage(**row["usage"])
    served = ServedTokens(**row["served"]) if "served" in row else None
    if "scores" in row:
        return ScoreResult(scores=tuple(row["scores"]), usage=usage)
    if "probabilities" in row:
        chosen = tuple(row["probabilities"])
        return ChoiceResult(probabilities=chosen, usage=usage, served=served)
    return SampleResult(
        samples=tuple(
            Sample(
                token_ids=tuple(sample["token_ids"]),
                step_logprobs=tuple(sample["step_logprobs"]),
                step_entropies=tuple(sample["step_entropies"]),
                stop_reason=StopReason(sample["stop_reason"]),
                draws=_draws_from_json(sample["draws"]),
            )
            for sample in row["samples"]
        ),
        usage=usage,
        served=served,
    )
