"""The process that asks reasoning-gym's scorers: `python -m rewards.verifiers.puzzles_worker
SECONDS`.

One JSON line in, `{"puzzle": answer, "text": answer}`, one out: `{"score": float}` or
`{"failed": reason}`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

from data.tasks.reasoning_gym import GymPuzzle, gym_dataset, runs_text

PUZZLE_MEMORY_BYTES = 4 << 30


@lru_cache(maxsize=64)
def dataset(name: str, options: str, seed: int, size: int) -> Any:
    return gym_dataset(name, json.loads(options), seed, size)


def score(puzzle: GymPuzzle, text: str) -> dict[str, Any]:
    puzzles = dataset(
        puzzle.dataset, json.dumps(puzzle.options, sort_keys=True), puzzle.seed, puzzle.size
    )
    if runs_text(puzzles):
        return {"refused": f"the scorer of {puzzle.dataset!r} evaluates the text of an answer"}
    if not 0 <= puzzle.index < puzzle.size:
        return {"refused": f"index is {puzzle.index}; allowed: 0 to {puzzle.size - 1}"}
    return {"score": float(puzzles.score_answer(text, puzzles[puzzle.index]))}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (PUZZLE_MEMORY_BYTES, PUZZLE_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silence, number)
    alarm_seconds = float(sys.argv[1])
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in requests:
        signal.setitimer(signal.ITIMER_REAL, alarm_seconds)
        request = json.loads(line)
        try:
            reply = score(GymPuzzle.from_answer(request["puzzle"]), request["text"])
        except Exception as error:  # a scorer on hostile text
            reply = {"failed": f"the scorer raises {type(error).__name__}"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
