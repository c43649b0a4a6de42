"""Answers to reasoning-gym's puzzles, judged by the library's own scorers in processes that can be
killed at a deadline.

Correct: a score of 1. Anything below is wrong, its score in the reason. A scorer that raises or is
not done in time leaves the answer unverifiable (time-outs are counted apart:
`rewards.verifiers.tally`). Scorers that evaluate an answer's text as Python are refused: with them
an answer is a program."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache

from data.settings import ROOT
from data.tasks.reasoning_gym import GymPuzzle
from data.types import Outcome, Problem, Verdict
from rewards.mathematics.answers import Unreadable, final_answer
from rewards.verifiers.tally import TALLY
from rewards.verifiers.worker_pool import WorkerDied, WorkerPool, WorkerTimeout

ANSWER_TAGS = re.compile(r"<answer>((?:(?!<answer>).)*)</answer>\s*\Z", re.S)
FULL_SCORE = 1.0


@dataclass(frozen=True, kw_only=True)
class GymVerifier:
    """Implements `rewards.base.Verifier`. `seconds` is one verification's deadline. The answer is
    what `<answer>` tags at the end hold, else what `rewards.mathematics.answers` finds."""

    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}; it must be above 0")

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """Raises ValueError when the problem's answer is no puzzle, or one whose scorer is
        refused."""
        try:
            GymPuzzle.from_answer(problem.answer)
        except ValueError as error:
            raise ValueError(f"problem {problem.id}: answer {error}") from error
        tagged = ANSWER_TAGS.search(solution[-20_000:])
        try:
            text = tagged[1].strip() if tagged else final_answer(solution)
        except Unreadable as error:
            return _counted(Outcome.UNVERIFIABLE, str(error))
        try:
            reply = _pool(self.seconds).ask({"puzzle": problem.answer, "text": text}, self.seconds)
        except WorkerTimeout:
            reason = f"could not be scored in {self.seconds:g} s"
            return _counted(Outcome.UNVERIFIABLE, reason, timed_out=True)
        except WorkerDied:
            return _counted(Outcome.UNVERIFIABLE, "made the process die that was to score it")
        if "refused" in reply:
            raise ValueError(f"problem {problem.id}: {reply['refused']}")
        if "score" not in reply:
            return _counted(Outcome.UNVERIFIABLE, str(reply.get("failed")))
        score = float(str(reply["score"]))
        if score >= FULL_SCORE:
            return _counted(Outcome.CORRECT, "")
        return _counted(Outcome.WRONG, f"scores {score:.3g} of {FULL_SCORE:g}")


def _counted(outcome: Outcome, reason: str, *, timed_out: bool = False) -> Verdict:
    verdict = Verdict(outcome=outcome, reason=reason)
    return TALLY.count("reasoning_gym", verdict, timed_out=timed_out)


@lru_cache(maxsize=8)
def _pool(seconds: float) -> WorkerPool:
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")}
    environment |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", "rewards.verifiers.puzzles_worker", str(2 * seconds + 30)]
    return WorkerPool(words, environment, os.cpu_count() or 1)
