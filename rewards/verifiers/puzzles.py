"""Answers to reasoning-gym's puzzles, judged by the library's own scorers in processes that can be
killed at a deadline.

Which text is the answer: what `<answer>` tags at the end hold; else what stands behind the last
line's mark `####`, to the end, so that an answer may have several lines; else what
`rewards.mathematics.answers` finds. Boxes, tags, fences, dollar signs and bold marks around the
whole of it are taken off before the scorer sees it.

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
from rewards.mathematics.answers import Unreadable, final_answer, tagged_answer
from rewards.verifiers.tally import TALLY
from rewards.verifiers.worker_pool import WorkerDied, WorkerPool, WorkerTimeout

MAX_TAIL_CHARACTERS = 20_000  # of a solution, where its answer is looked for
MARK = re.compile(r"(?:\A|\n)####")
WRAPPINGS = (
    re.compile(r"```[\w+-]*[ \t]*\n(?P<inside>.*?)\n?```", re.S),
    re.compile(r"\\(?:boxed|fbox|text|mathrm|mathbf|textbf) ?\{(?P<inside>[^{}]*)\}", re.S),
    re.compile(r"<answer>(?P<inside>.*)</answer>", re.S),
    re.compile(r"\$\$(?P<inside>[^$]*)\$\$|\$(?P<single>[^$]*)\$", re.S),
    re.compile(r"\\\[(?P<inside>.*)\\\]|\\\((?P<single>.*)\\\)", re.S),
    re.compile(r"\*\*(?P<inside>[^*]*)\*\*", re.S),
    re.compile(r"`(?P<inside>[^`]*)`", re.S),
)
FULL_SCORE = 1.0


@dataclass(frozen=True, kw_only=True)
class GymVerifier:
    """Implements `rewards.base.Verifier`. `seconds` is one verification's deadline."""

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
        try:
            text = puzzle_answer(solution)
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


def puzzle_answer(solution: str) -> str:
    """The text for the scorer. Raises `Unreadable` where there is none."""
    tail = solution.rstrip()[-MAX_TAIL_CHARACTERS:]
    marks = list(MARK.finditer(tail))
    tagged = tagged_answer(tail)
    if tagged is not None:
        text = tagged
    elif marks:
        text = tail[marks[-1].end() :].removeprefix(" ")
    else:
        text = final_answer(solution)
    text = _unwrapped(text)
    if not text.strip():
        raise Unreadable("has an empty final answer")
    return text


def _unwrapped(text: str) -> str:
    for _ in range(4):
        # The spaces before the first of several lines are a part of what they show.
        text = text.strip("\r\n").rstrip() if "\n" in text.strip() else text.strip()
        match = next(
            (found for pattern in WRAPPINGS if (found := pattern.fullmatch(text.strip()))), None
        )
        if match is None:
            break
        text = next(group for group in match.groups() if group is not None)
    return text


def _counted(outcome: Outcome, reason: str, *, timed_out: bool = False) -> Verdict:
    verdict = Verdict(outcome=outcome, reason=reason)
    return TALLY.count("reasoning_gym", verdict, timed_out=timed_out)


@lru_cache(maxsize=8)
def _pool(seconds: float) -> WorkerPool:
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")}
    environment |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", "rewards.verifiers.puzzles_worker", str(2 * seconds + 30)]
    return WorkerPool(words, environment, os.cpu_count() or 1)
