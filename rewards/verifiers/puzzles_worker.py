"""The process that asks reasoning-gym's scorers: `python -m rewards.verifiers.puzzles_worker
SECONDS`.

One JSON line in, `{"puzzle": answer, "text": answer}`, one out: `{"score": float}` or
`{"failed": reason}`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from data.tasks.reasoning_gym import GymPuzzle, gym_dataset, runs_text
from rewards.line_worker import answer_lines

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


def answer_line(line: str) -> dict[str, Any]:
    request = json.loads(line)
    try:
        return score(GymPuzzle.from_answer(request["puzzle"]), request["text"])
    except Exception as error:  # a scorer on hostile text
        return {"failed": f"the scorer raises {type(error).__name__}"}


if __name__ == "__main__":
    answer_lines(answer_line, PUZZLE_MEMORY_BYTES)
