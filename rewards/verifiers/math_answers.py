"""Mathematical answers against a gold answer: structure here, algebra by math-verify.

What is decided, beyond which text is the answer (`rewards.mathematics.answers`):
- Numbers are exact: 0.75 is 3/4, 0.333 is not 1/3, 3.14 is not pi. Trailing zeros, a leading plus,
  thousands separators and mixed numbers are spellings.
- Lists and sets are equal in any order, with every element found once; alternatives ("3 or 4") are
  such a list, so they are right only where the gold answer lists the same, or where all of them
  are the gold answer ("15 39/40 or 639/40").
- Tuples and intervals keep order and brackets: (1, 2) is not [1, 2], nor the list 1, 2. A union's
  parts may stand in any order. Matrices with round and square brackets are the same, bars are not.
- "x = 5" is 5, and y = 5 is not x = 5; "x = 10/2 = 5" needs all its values right. Any other
  equation is compared as an equation, and is no answer where the gold answer is none.
- Percent: 50% is 1/2. The sign may also be left out, or put, where the gold answer has it or the
  question speaks of percent. Other units: `rewards.mathematics.units.unit_fault`.
- A word after a number is dropped only where it is a known unit, or stands in the question.
- Letters of formulas keep their case; `rewards.mathematics.imaginary` says when i is imaginary. A
  degree sign inside a formula is pi/180. Primes, "mod" and other signs that the parser leaves
  out: unverifiable, unless the texts are the same.
- Relations joined by "or" are not those joined by "and", and are the union of intervals that they
  describe; an approximation is no equation. Where one
  side names its values (x = 1, y = 2), they are not compared in another order without names.
- "No solution" is the empty set, "all real numbers" an interval, x \\ne 1 the union beside it. What
  goes on (0.333...) is read as nothing but itself; a time of day is no ratio.
- Words are compared as words, without case. "52_8" is compared digit by digit.
- A gold answer that algebra cannot parse: the same text is correct, all else unverifiable.
- Characters that are invisible, digits that are not ASCII: unverifiable.
- Nothing in time, or not enough memory: unverifiable, counted apart (`rewards.verifiers.tally`).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from data.settings import ROOT
from data.types import Outcome, Problem, Verdict
from rewards.mathematics.answers import MAX_ANSWER_CHARACTERS, Unreadable, final_answer
from rewards.mathematics.clock import clock_time, is_clock_time
from rewards.mathematics.imaginary import speaks_of_complex
from rewards.mathematics.relations import (
    as_relations,
    both_equations,
    set_and_inequality,
    signs_of_relation,
    with_name,
)
from rewards.mathematics.structure import (
    SET,
    Answer,
    Kind,
    exact_decimals,
    is_percent,
    like_its_unit,
    rational,
    read_answer,
)
from rewards.mathematics.units import asks_for_percent, unit_fault, unknown_unit
from rewards.verifiers.tally import TALLY
from rewards.verifiers.worker_pool import WorkerDied, WorkerPool, WorkerTimeout

CACHE_SIZE = 1 << 14
DEGREES = re.compile(r"(?<![\w.^_])(\d+\.?\d*) ?\^ ?\\circ ?")
# What algebra's parser leaves out, or takes for something else: a transpose, also where T is a
# variable; a derivative's order; what may stand under a slash, or beside it (1/2x).
MISREAD = re.compile(
    r"\\(?:[bp]?mod|circ|lor|land|vee|wedge)(?![A-Za-z])|%|\b0[xXbBoO][0-9A-Fa-f]"
    r"|\^ ?\{? ?(?:T(?![A-Za-z])|\\(?:top|intercal)(?![A-Za-z]))|\^ ?\{ ?\( ?\d+ ?\) ?\}"
    r"|/ ?(?!d[a-z])(?:\d+|[A-Za-z]) ?"
    r"(?:[A-Za-z({]|\\(?:sqrt|frac|pi|sin|cos|tan|log|ln|theta)(?![A-Za-z]))"
)


class _OutOfTime(Exception):
    pass


class _Wrong(Exception):
    """The reason why the answer is not the gold answer."""


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
            return TALLY.count("math", _unverifiable(str(error)))
        key = (problem.prompt, problem.answer, answer)
        known = self._known.get(key)
        if known is None:
            try:
                known = self._judge(problem, answer)
            except WorkerDied:  # which may be no fault of the answer's, so it is not kept
                reason = "the process that was to compare it died, twice"
                return TALLY.count("math", _unverifiable(reason))
            self._known.put(key, known)
        verdict, timed_out = known
        return TALLY.count("math", verdict, timed_out=timed_out)

    def _judge(self, problem: Problem, answer: str) -> tuple[Verdict, bool]:
        comparison = _Comparison(
            question=problem.prompt,
            ask=_pool(self.workers or os.cpu_count() or 1, self.seconds).ask,
            deadline=time.monotonic() + self.seconds,
        )
        try:
            return comparison.verdict(problem.answer, answer), False
        except _OutOfTime:
            reason = f"could not be compared with the gold answer in {self.seconds:g} s"
            return _unverifiable(reason), True


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


def _unverifiable(reason: str) -> Verdict:
    return Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason)


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """One gold answer and one answer. Every method that takes two `Answer`s takes gold first, and
    raises `_Wrong` where they differ and `Unreadable` where nothing can be said."""

    question: str
    ask: Callable[..., dict[str, object]]
    deadline: float  # of time.monotonic

    def verdict(self, gold_text: str, answer_text: str) -> Verdict:
        gold_text = gold_text.strip()
        if len(gold_text) > MAX_ANSWER_CHARACTERS:
            return _unverifiable(
                f"the gold answer has more than {MAX_ANSWER_CHARACTERS} characters"
            )
        try:
            answer = read_answer(answer_text)
        except Unreadable as error:
            if gold_text.strip() == answer_text.strip():
                return Verdict(outcome=Outcome.CORRECT)
            return _unverifiable(str(error))
        try:
            gold = read_answer(gold_text)
        except Unreadable as error:
            if gold_text.strip() == answer_text.strip():
                return Verdict(outcome=Outcome.CORRECT)
            return _unverifiable(f"the gold answer {error}")
        try:
            self.match(gold, answer)
        except _Wrong as error:
            return Verdict(outcome=Outcome.WRONG, reason=str(error))
        except Unreadable as error:
            return _unverifiable(str(error))
        return Verdict(outcome=Outcome.CORRECT)

    def match(self, gold: Answer, answer: Answer) -> None:
        if gold.name and answer.name and gold.name != answer.name:
            raise _Wrong(f"gives {answer.name}, not {gold.name}")
        relations = as_relations(gold, answer)
        if relations is not None:
            self._lists(*relations)
            return
        chain = answer.kind is Kind.SCALAR and answer.items  # x = 10/2 = 5
        alternatives = answer.kind is Kind.LIST and answer.brackets != SET
        if chain or (alternatives and gold.kind is not Kind.LIST):
            for value in answer.items:
                self.match(gold, value)
            return
        if gold.kind is answer.kind:
            {
                Kind.SCALAR: self._scalars,
                Kind.WORDS: self._texts,
                Kind.BASED: self._texts,
                Kind.LIST: self._lists,
                Kind.UNION: self._lists,
                Kind.TUPLE: self._in_order,
                Kind.MATRIX: self._in_order,
                Kind.EQUATION: self._equations,
            }[gold.kind](gold, answer)
        elif set_and_inequality(gold, answer) or both_equations(gold, answer):
            self._equations(gold, answer)
        elif Kind.EQUATION in (gold.kind, answer.kind) and gold.kind is not Kind.EQUATION:
            raise Unreadable(f"is {answer.kind.value}, but the gold answer is {gold.kind.value}")
        elif {gold.kind, answer.kind} == {Kind.MATRIX, Kind.SCALAR} and (
            "matrix}" in gold.text and "matrix}" in answer.text
        ):  # -2 times a matrix
            if not self._by_algebra(gold.text, answer.text, relation=False):
                raise _Wrong("is another matrix")
        elif {gold.kind, answer.kind} == {Kind.WORDS, Kind.SCALAR}:
            self._words_and_scalar(gold, answer)
        else:
            raise _Wrong(f"is {answer.kind.value}, but the gold answer is {gold.kind.value}")

    def _texts(self, gold: Answer, answer: Answer) -> None:
        if gold.text != answer.text:
            raise _Wrong(f"is {answer.text[:80]!r}, not {gold.text[:80]!r}")

    def _words_and_scalar(self, gold: Answer, answer: Answer) -> None:
        """A letter can be a choice or a variable: (C) and C. Otherwise words are no number."""
        if gold.text.strip("() ").casefold() != answer.text.strip("() ").casefold() or gold.unit:
            raise _Wrong(f"is {answer.kind.value}, but the gold answer is {gold.kind.value}")

    def _in_order(self, gold: Answer, answer: Answer) -> None:
        if gold.brackets != answer.brackets or len(gold.items) != len(answer.items):
            raise _Wrong(f"is {answer.text[:80]!r}: other brackets, or another number of elements")
        for ours, theirs in zip(gold.items, answer.items, strict=True):
            self.match(ours, theirs)

    def _lists(self, gold: Answer, answer: Answer) -> None:
        """Equality is transitive, so taking the first element that matches loses nothing."""
        if len(gold.items) != len(answer.items):
            raise _Wrong(f"has {len(answer.items)} elements, not {len(gold.items)}")
        if gold.text.replace(" ", "") == answer.text.replace(" ", ""):
            return
        self._connectives(gold, answer)
        if _ordered_by_names(gold, answer):
            try:
                self._in_order(gold, replace(answer, brackets=gold.brackets))
            except _Wrong as error:
                raise Unreadable("lists values without the names they have elsewhere") from error
            return
        left = list(answer.items)
        for ours in gold.items:
            for theirs in left:
                try:
                    self.match(ours, theirs)
                except _Wrong:
                    continue
                left.remove(theirs)
                break
            else:
                raise _Wrong(f"lacks {ours.text[:80]!r}")

    def _connectives(self, gold: Answer, answer: Answer) -> None:
        """How relations are joined. Where "and" and "or" both occur, nothing is said."""
        joined = {side.brackets for side in (gold, answer)} - {"", SET}
        if joined == {"and", "or"}:
            raise _Wrong("joins relations by another word")
        if len(joined) > 1 or "and or" in joined:
            raise Unreadable("joins relations in another way than the gold answer")

    def _scalars(self, gold: Answer, answer: Answer) -> None:
        gold, answer = like_its_unit(gold, answer.unit), like_its_unit(answer, gold.unit)
        if gold.unit != answer.unit:
            for side in (gold, answer):
                word = unknown_unit(side.unit, self.question)
                if word:
                    raise Unreadable(f"has {word!r} after a number: no unit that is known")
        if is_percent(gold) or is_percent(answer):
            readings = self._percent_readings(gold, answer)
        else:
            fault = unit_fault(gold.unit, answer.unit, self.question)
            if fault is not None:
                raise _Wrong(fault)
            readings = [(gold.text, answer.text)]
        if is_clock_time(gold, answer, self.question):
            self._texts(clock_time(gold), clock_time(answer))
            return
        if not any(self._equal(ours, theirs) for ours, theirs in readings):
            raise _Wrong(f"is {_written(answer)!r}, not {_written(gold)!r}")

    def _percent_readings(self, gold: Answer, answer: Answer) -> list[tuple[str, str]]:
        """The pairs of texts one of which must be equal."""
        if is_percent(gold) and is_percent(answer):
            return [(gold.text, answer.text)]
        if (gold.unit and not is_percent(gold)) or (answer.unit and not is_percent(answer)):
            raise _Wrong(f"the unit is {answer.unit or 'none'}, not {gold.unit or 'none'}")
        if is_percent(gold):
            return [(gold.text, answer.text), (_hundredth(gold.text), answer.text)]
        bare = [(gold.text, answer.text)] if asks_for_percent(self.question) else []
        return [*bare, (gold.text, _hundredth(answer.text))]

    def _equal(self, gold: str, answer: str) -> bool:
        exact = rational(exact_decimals(gold)), rational(exact_decimals(answer))
        if exact[0] is not None and exact[1] is not None:
            return exact[0] == exact[1]
        if gold.replace(" ", "") == answer.replace(" ", ""):
            return True
        return self._by_algebra(gold, answer, relation=False)

    def _equations(self, gold: Answer, answer: Answer) -> None:
        if set_and_inequality(gold, answer):
            ours, theirs = gold.text, answer.text
        else:
            ours, theirs = with_name(gold), with_name(answer)
        if ours.replace(" ", "") == theirs.replace(" ", ""):
            return
        if not self._by_algebra(ours, theirs, relation=True):
            raise _Wrong(f"is {theirs[:80]!r}, not {ours[:80]!r}")

    def _by_algebra(self, gold: str, answer: str, *, relation: bool) -> bool:
        request = {
            side: exact_decimals(DEGREES.sub(r"(\\frac{\1 \\pi}{180})", text))
            for side, text in (("gold", gold), ("answer", answer))
        }
        for side, text in request.items():
            # The parser would leave words out, and what follows them.
            if "$" in text or "\\text" in text or not text.strip():
                whose = "gold" if side == "gold" else "final"
                raise Unreadable(f"the {whose} answer {text[:80]!r} is no formula")
            misread = MISREAD.search(text)
            if misread is not None:
                raise Unreadable(f"has {misread[0]!r} in a formula, which is not read")
        if any("'" in text or "\\prime" in text for text in request.values()):
            raise Unreadable("has primes in a formula, which are not read")
        if signs_of_relation(gold) != signs_of_relation(answer) and relation:
            raise Unreadable("has another sign of relation than the gold answer")
        if _differ_in_case(gold, answer):
            return False
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise _OutOfTime
        try:
            kind = {"relation": relation, "complex": speaks_of_complex(self.question)}
            reply = self.ask({**request, **kind}, left)
        except WorkerTimeout as error:
            raise _OutOfTime from error
        if "equal" in reply:
            return reply["equal"] is True
        if "unparsed" in reply:
            whose = "the gold answer" if reply["unparsed"] == "gold" else "the final answer"
            raise Unreadable(f"{whose} {request[str(reply['unparsed'])][:80]!r} does not parse")
        raise Unreadable(f"{reply.get('failed')}")


def _differ_in_case(gold: str, answer: str) -> bool:
    """Whether the variables, or the whole texts, are the same but for their case: what compares
    names is not everywhere careful about it."""
    if gold.casefold() == answer.casefold() and sorted(gold) != sorted(answer):
        return True
    ours, theirs = (
        set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+", " ", text)))
        for text in (gold, answer)
    )
    return ours != theirs and {c.lower() for c in ours} == {c.lower() for c in theirs}


def _hundredth(text: str) -> str:
    exact = rational(exact_decimals(text))
    if exact is None:
        return f"\\frac{{{text}}}{{100}}"
    return f"\\frac{{{exact.numerator}}}{{{100 * exact.denominator}}}"


def _written(answer: Answer) -> str:
    return f"{answer.text[:80]} {answer.unit}".strip()


def _ordered_by_names(gold: Answer, answer: Answer) -> bool:
    """x = 1, y = 2 and 1, 2: one side names its values, and only their order names the other's."""
    names = [{item.name for item in side.items if item.name} for side in (gold, answer)]
    return any(len(ours) > 1 for ours in names) and not all(names)
