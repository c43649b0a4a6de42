"""Mathematical answers against a gold answer: the structure is judged here, the algebra by sympy.

What is decided, beyond which text is the answer (`rewards.mathematics.answers`) and how a formula
is read (`rewards.mathematics.formulas`: factors side by side are a product, and what has two
readings, such as 2^10 or 1/2x, is unverifiable):
- Numbers are exact: 0.75 is 3/4, 0.333 is not 1/3, 3.14 is not pi. Trailing zeros, a leading plus,
  thousands separators, mixed numbers and "5 million" are spellings. A comma is no decimal point.
- Lists and sets are equal in any order, with every element found once. Alternatives ("3 or 4", or
  several boxes, whatever joins them) are such a list. They are right where the gold answer lists
  the same, or where all of them are the gold answer ("15 39/40 or 639/40").
- Tuples and intervals keep order and brackets: (1, 2) is not [1, 2], nor the list 1, 2. A union's
  parts may stand in any order. Matrices with round and square brackets are the same, bars are not.
  A column and a tuple of the same values are the same vector.
- A pair is no interval. The gold answer (3, 4) is 3 < x < 4, or x \\in (3, 4), where the question
  speaks of intervals, inequalities or a domain and of no point; it is wrong where the question
  speaks of a point; where it speaks of neither or both, nobody knows: unverifiable.
- "x = 5" is 5, and y = 5 is not x = 5; "x = 10/2 = 5" needs all its values right. So are |AB| = 1,
  f(1) = 2, (x, y) = (3, 2), a + b = 7 and what stands in the question before "=" (2x = 10), but not
  2x = 5. Any other equation is compared as an equation, and is no answer where the gold one is
  none.
- Relations are equal where their solutions are (x^2 < 4 and -2 < x < 2). A letter that cancels is
  not forgotten: x > x is not y > y. What says nothing about a letter, or has no solution, is
  unverifiable unless the texts are the same (1 = 2 and 3 = 4). {x : x > 1} is x > 1.
- Percent: 50% is 1/2. The sign may also be left out, or put, where the gold answer has it or the
  question speaks of percent. A whole number above 1 is answered by no percentage (5000% and 50:
  unverifiable). Other units: `rewards.mathematics.units.unit_fault`. Radians are turned into
  degrees, and nothing else is converted.
- A word after a number is dropped only where it is a known unit, or stands in the question.
- Letters of formulas keep their case; `rewards.mathematics.imaginary` says when i is imaginary. A
  degree sign inside a formula is pi/180, and behind a letter nothing that is read. Primes, "mod"
  and words in formulas: unverifiable, unless the texts are the same.
- Relations joined by "or" are not those joined by "and"; an approximation is no equation. Where one
  side names its values (x = 1, y = 2), they are not compared in another order without names, but
  are the point (1, 2).
- "No (real) solution" is the empty set, "all real numbers" an interval, "infinitely many" infinity,
  x \\ne 1 all numbers but 1. What goes on (0.333...) is read as nothing but itself; a time of day
  is no ratio; 2:3:4 is 4:6:8.
- The letter of a choice is enough: "(A) 5" is A, and 5; so are "A) 5" and "option A",
  but not "(A) or (B)".
- Words are compared as words, without case. "52_8" is compared digit by digit, and beside 52
  alone it is unverifiable. So are vectors in letters for the axes (2i + 3j) beside (2, 3), a set by
  its condition beside its elements, 1, 2, 3 beside (1, 2, 3), degrees beside the same gold angle in
  radians, and a gold answer with an approximation's sign, and sums, products over
  an index, integrals and limits that are not worked out.
- A gold answer that is not understood: the same text is correct, all else unverifiable.
- Characters that are invisible, digits that are not ASCII: unverifiable.
- Nothing in time, or not enough memory: unverifiable, counted apart (`rewards.verifiers.tally`).
"""

from __future__ import annotations

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from data.settings import ROOT
from data.types import Problem, Verdict
from rewards.mathematics.answers import Unreadable, final_answer
from rewards.mathematics.comparison import AnswerComparison, OutOfTime, unverifiable
from rewards.verifiers.tally import TALLY
from rewards.verifiers.worker_pool import WorkerDied, WorkerPool, WorkerTimeout

CACHE_SIZE = 1 << 14


@dataclass(frozen=True, kw_only=True)
class MathVerifier:
    """Implements `rewards.base.Verifier`. `seconds` is one verification's deadline; at most
    `workers` processes (None: one a core) do the algebra, started when first needed."""

    seconds: float = 5.0
    workers: int | None = None
    _known: _Cache = field(default_factory=lambda: _Cache(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}; it must be above 0")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; allowed: 1 or more, or null")

    def verify(self, problem: Problem, solution: str) -> Verdict:
        """Raises ValueError when the problem's answer is empty. Any thread may call."""
        if not problem.answer.strip():
            raise ValueError(f"problem {problem.id}: answer is empty")
        try:
            answer = final_answer(solution)
        except Unreadable as error:
            return TALLY.count("math", unverifiable(str(error)))
        key = (problem.prompt, problem.answer, answer)
        known = self._known.get(key)
        if known is None:
            try:
                known = self._judge(problem, answer)
            except WorkerDied:  # which may be no fault of the answer's, so it is not kept
                reason = "the process that was to compare it died, twice"
                return TALLY.count("math", unverifiable(reason))
            self._known.put(key, known)
        verdict, timed_out = known
        return TALLY.count("math", verdict, timed_out=timed_out)

    def _ask(self, request: Mapping[str, object], seconds: float) -> dict[str, object]:
        pool = _pool(self.workers or os.cpu_count() or 1, self.seconds)
        try:
            return pool.ask(request, seconds)
        except WorkerTimeout as error:
            raise OutOfTime from error

    def _judge(self, problem: Problem, answer: str) -> tuple[Verdict, bool]:
        comparison = AnswerComparison(
            question=problem.prompt,
            ask=self._ask,
            deadline=time.monotonic() + self.seconds,
        )
        try:
            return comparison.verdict(problem.answer, answer), False
        except OutOfTime:
            reason = f"could not be compared with the gold answer in {self.seconds:g} s"
            return unverifiable(reason), True


class _Cache:
    """The last verdicts. A time-out is kept too: a sample seen twice is judged alike twice."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str, str], tuple[Verdict, bool]] = OrderedDict()

    def get(self, key: tuple[str, str, str]) -> tuple[Verdict, bool] | None:
        return self._entries.get(key)

    def put(self, key: tuple[str, str, str], value: tuple[Verdict, bool]) -> None:
        self._entries[key] = value
        while len(self._entries) > CACHE_SIZE:
            try:
                self._entries.popitem(last=False)
            except KeyError:  # another thread emptied it
                return


@lru_cache(maxsize=8)
def _pool(size: int, seconds: float) -> WorkerPool:
    """One pool for all verifiers of a process."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")}
    environment |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", "rewards.mathematics.worker", str(2 * seconds + 10)]
    return WorkerPool(words, environment, size)
