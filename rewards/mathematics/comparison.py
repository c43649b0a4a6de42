"""One gold answer beside one answer: which of their parts must be equal, and how.

The rules are those of `rewards.verifiers.math_answers`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data.types import Outcome, Verdict
from rewards.mathematics.answers import MAX_ANSWER_CHARACTERS, Unreadable
from rewards.mathematics.clock import clock_time, is_clock_time
from rewards.mathematics.imaginary import speaks_of_complex
from rewards.mathematics.relations import (
    NotAnInterval,
    as_joined,
    as_relations,
    both_equations,
    called_values,
    in_one_letter,
    joined_relations,
    left_out_points,
    pieces_of,
    set_and_inequality,
    signs_of_relation,
    with_name,
)
from rewards.mathematics.structure import (
    PLAIN_NUMBER,
    SET,
    Answer,
    Kind,
    exact_decimals,
    is_percent,
    like_its_unit,
    rational,
    read_answer,
    read_part,
    with_degrees,
)
from rewards.mathematics.units import (
    DEGREE,
    asks_for_degrees,
    asks_for_percent,
    unit_fault,
    unknown_unit,
)

DEGREES = re.compile(r"(?<![\w.^_])(\d+\.?\d*) ?\^ ?\\circ ?")
CHOICE = re.compile(r"\\text ?\{ ?\(?([A-Z])[).:] ?\.? ?\} ?(.+)")
SEVERAL_CHOICES = re.compile(
    r"\(?[A-J]\)?|.*(?:\b(?:or|and)\b|\\l(?:or|and)\b|(?:\A|[\s{,;/&|])\(?[A-J]\)).*"
)
PLAIN_CHOICE = re.compile(r"\(([A-J])\) (.+)")
# What stands for the axes: \vec{i}, \hat{\imath}, or i and j.
VECTORS = re.compile(
    r"\\(?:vec|hat|mathbf|text|overrightarrow) ?\{ ?\\?[ijk](?:math)? ?\}|\\[ij]math"
    r"|(?<![A-Za-z])i(?![A-Za-z]).*(?<![A-Za-z])j(?![A-Za-z])"
)
FUNCTION_NAME = re.compile(r"\b(?:a?(?:sin|cos|tan)|log|ln|sqrt|exp|pi)(?=h?[a-z]?\b)|theta|alpha")
# Beside anything else these are not compared: what else they could be is not known.
UNORDERED = {Kind.EQUATION, Kind.EXCEPT, Kind.RATIO}
Side = str | list[list[str]] | dict[str, list[str]]


class OutOfTime(Exception):
    """The deadline passed."""


class _Wrong(Exception):
    """The reason why the answer is not the gold answer."""


def unverifiable(reason: str) -> Verdict:
    return Verdict(outcome=Outcome.UNVERIFIABLE, reason=reason)


@dataclass(frozen=True, kw_only=True)
class AnswerComparison:
    """One gold answer and one answer. Every method that takes two `Answer`s takes gold first, and
    raises `_Wrong` where they differ and `Unreadable` where nothing can be said."""

    question: str
    ask: Callable[..., dict[str, object]]
    deadline: float  # of time.monotonic

    def verdict(self, gold_text: str, answer_text: str) -> Verdict:
        gold_text = gold_text.strip()
        if len(gold_text) > MAX_ANSWER_CHARACTERS:
            return unverifiable(f"the gold answer has more than {MAX_ANSWER_CHARACTERS} characters")
        try:
            answer = read_answer(answer_text)
        except Unreadable as error:
            if gold_text.strip() == answer_text.strip():
                return Verdict(outcome=Outcome.CORRECT)
            return unverifiable(str(error))
        try:
            gold = read_answer(gold_text)
        except Unreadable as error:
            if gold_text.strip() == answer_text.strip():
                return Verdict(outcome=Outcome.CORRECT)
            return unverifiable(f"the gold answer {error}")
        try:
            self.match(gold, answer)
        except _Wrong as error:
            return Verdict(outcome=Outcome.WRONG, reason=str(error))
        except Unreadable as error:
            return unverifiable(str(error))
        return Verdict(outcome=Outcome.CORRECT)

    def match(self, gold: Answer, answer: Answer) -> None:
        if _is_bare_number(gold) and _is_bare_number(answer):
            self._scalars(gold, answer)
            return
        sides = self._as_values(gold, answer)
        if sides is not None:
            self.match(*sides)
            return
        answer = in_one_letter(gold, answer)
        if gold.name and answer.name and gold.name != answer.name:
            if not gold.kind is answer.kind is Kind.SCALAR:
                raise _Wrong(f"gives {answer.name}, not {gold.name}")
            self._equations(gold, answer)  # xy = 1 and y = 1/x
            return
        relations = left_out_points(gold, answer) or as_relations(gold, answer)
        if relations is not None:
            self._lists(*relations)
        elif joined_relations(gold, answer):
            sides = [self._relation(side, side is gold) for side in (gold, answer)]
            if not self._ask(sides, relation=True):
                raise _Wrong(f"is {answer.text[:80]!r}, not {gold.text[:80]!r}")
        elif _names_coordinates(gold, answer) or _names_coordinates(answer, gold):
            self._in_order(gold, replace(answer, brackets=gold.brackets))
        elif (
            (answer.kind is Kind.SCALAR and answer.items)  # x = 10/2 = 5
            or (answer.kind is Kind.LIST and answer.brackets != SET and gold.kind is not Kind.LIST)
        ):
            for value in answer.items:
                self.match(gold, value)
        elif gold.kind is answer.kind:
            self._alike(gold, answer)
        else:
            self._unlike(gold, answer)

    def _unlike(self, gold: Answer, answer: Answer) -> None:
        if {gold.kind, answer.kind} == {Kind.TUPLE, Kind.UNION}:
            self._interval(gold, answer)
        elif set_and_inequality(gold, answer) or both_equations(gold, answer):
            self._equations(gold, answer)
        elif _may_be_alike(gold, answer) or (
            {gold.kind, answer.kind} & UNORDERED and gold.kind is not Kind.EQUATION
        ):
            raise Unreadable(f"is {answer.kind.value}, but the gold answer is {gold.kind.value}")
        elif {gold.kind, answer.kind} == {Kind.MATRIX, Kind.SCALAR} and (
            "matrix}" in gold.text and "matrix}" in answer.text
        ):  # -2 times a matrix
            if not self._by_algebra(gold.text, answer.text):
                raise _Wrong("is another matrix")
        elif _is_column(gold, answer):
            self._in_order(gold, replace(answer, brackets=gold.brackets))
        elif {gold.kind, answer.kind} == {Kind.LIST, Kind.TUPLE} and _bare_and_round(gold, answer):
            self._in_order(gold, replace(answer, brackets=gold.brackets))
            raise Unreadable("is a list beside a tuple of the same values")
        elif {gold.kind, answer.kind} == {Kind.WORDS, Kind.SCALAR}:
            self._words_and_scalar(gold, answer)
        else:
            raise _Wrong(f"is {answer.kind.value}, but the gold answer is {gold.kind.value}")

    def _interval(self, gold: Answer, answer: Answer) -> None:
        """An interval beside a union of one, which x \\in (1, 2) is."""
        parts = [side.items if side.kind is Kind.UNION else (side,) for side in (gold, answer)]
        if any(len(part) != 1 or part[0].kind is not Kind.TUPLE for part in parts):
            raise _Wrong(f"is {answer.kind.value}, but the gold answer is {gold.kind.value}")
        for side in (gold, answer):
            if side.kind is Kind.TUPLE:
                self._pieces(side, side is gold)
        self._in_order(parts[0][0], parts[1][0])

    def _alike(self, gold: Answer, answer: Answer) -> None:
        {
            Kind.SCALAR: self._scalars,
            Kind.WORDS: self._texts,
            Kind.BASED: self._texts,
            Kind.LIST: self._lists,
            Kind.UNION: self._lists,
            Kind.EXCEPT: self._lists,
            Kind.RATIO: self._ratios,
            Kind.TUPLE: self._in_order,
            Kind.MATRIX: self._in_order,
            Kind.EQUATION: self._equations,
        }[gold.kind](gold, answer)

    def _as_values(self, gold: Answer, answer: Answer) -> tuple[Answer, Answer] | None:
        """Both without the letter of a choice, "(A) 5", or what a value is called by; None where
        nothing is to be left out."""
        ours, theirs = (CHOICE.fullmatch(side.text) for side in (gold, answer))
        for choice in (theirs, PLAIN_CHOICE.fullmatch(answer.text)):
            if choice is not None and SEVERAL_CHOICES.fullmatch(choice[2]):
                raise Unreadable("may name several choices")
        for choice, side in ((ours, answer), (theirs, gold)):
            if choice is not None and re.fullmatch(r"\(?[A-Za-z]\)?", side.text):
                letter = Answer(kind=Kind.WORDS, text=choice[1].casefold())
                other = Answer(kind=Kind.WORDS, text=side.text.strip("()").casefold())
                return (letter, other) if choice is ours else (other, letter)
        plain = _without_plain_choice(gold, answer)
        if plain is not None:
            return plain
        if ours is not None or theirs is not None:
            return (
                read_part(ours[2]) if ours else gold,
                read_part(theirs[2]) if theirs else answer,
            )
        return called_values(gold, answer, self.question)

    def _ratios(self, gold: Answer, answer: Answer) -> None:
        """2:3:4 is 4:6:8."""
        if len(gold.items) != len(answer.items):
            raise _Wrong("is a ratio of another number of values")
        first, other = gold.items[0].text, answer.items[0].text
        for ours, theirs in zip(gold.items[1:], answer.items[1:], strict=True):
            sides = f"({first}) \\cdot ({theirs.text})", f"({other}) \\cdot ({ours.text})"
            if not self._by_algebra(*sides):
                raise _Wrong(f"is {answer.text[:80]!r}, not {gold.text[:80]!r}")

    def _texts(self, gold: Answer, answer: Answer) -> None:
        if gold.text != answer.text:
            raise _Wrong(f"is {answer.text[:80]!r}, not {gold.text[:80]!r}")

    def _words_and_scalar(self, gold: Answer, answer: Answer) -> None:
        """A letter can be a choice or a variable: (C) and C. Otherwise words are no number."""
        if any(
            side.kind is Kind.WORDS and FUNCTION_NAME.search(side.text) for side in (gold, answer)
        ):
            raise Unreadable("has the name of a function among its letters")
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
        units = {gold.unit, answer.unit}
        if "radian" in units and (DEGREE in units or asks_for_degrees(self.question)):
            gold, answer = with_degrees(gold), with_degrees(answer)
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
            self._radians(gold, answer)
            raise _Wrong(f"is {_written(answer)!r}, not {_written(gold)!r}")
        count = rational(gold.text)
        whole = count is not None and count > 1 and count.denominator == 1
        if whole and is_percent(answer) and not gold.unit and len(readings) == 1:
            raise Unreadable("is a percentage, but the gold answer is a whole number")

    def _radians(self, gold: Answer, answer: Answer) -> None:
        """Degrees beside a gold number with pi, which may be radians. Raises `Unreadable` where
        both are the same angle."""
        if gold.unit or answer.unit != DEGREE or "\\pi" not in gold.text:
            return
        if self._equal(gold.text, f"\\frac{{({answer.text}) \\pi}}{{180}}"):
            raise Unreadable("is the same angle if it is in radians")

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
        if "\\emptyset" in (gold.strip(), answer.strip()):
            return False
        return self._by_algebra(gold, answer)

    def _equations(self, gold: Answer, answer: Answer) -> None:
        ours, theirs = (
            side.text if set_and_inequality(gold, answer) else with_name(side)
            for side in (gold, answer)
        )
        if ours.replace(" ", "") == theirs.replace(" ", ""):
            return
        if gold.kind is Kind.EQUATION is answer.kind and signs_of_relation(
            gold.text
        ) != signs_of_relation(answer.text):
            raise Unreadable("has another sign of relation than the gold answer")
        if set_and_inequality(gold, answer):
            sides = [self._relation(side, side is gold) for side in (gold, answer)]
        else:
            sides = [ours, theirs]
        if not self._ask(sides, relation=True):
            raise _Wrong(f"is {theirs[:80]!r}, not {ours[:80]!r}")

    def _relation(self, side: Answer, is_gold: bool) -> Side:
        if side.kind is Kind.EQUATION:
            return side.text
        return as_joined(side) if side.kind is Kind.LIST else self._pieces(side, is_gold)

    def _pieces(self, side: Answer, is_gold: bool) -> list[list[str]]:
        try:
            return pieces_of(side, self.question, is_gold=is_gold)
        except NotAnInterval as error:
            raise _Wrong("is an inequality beside a point, or a point beside one") from error

    def _by_algebra(self, gold: str, answer: str) -> bool:
        if _differ_in_case(gold, answer):
            return False
        return self._ask([gold, answer], relation=False)

    def _ask(self, sides: Sequence[Side], *, relation: bool) -> bool:
        """The worker's word on gold's and the answer's sides."""
        request: dict[str, object] = {
            whose: _prepared(side) for whose, side in zip(("gold", "answer"), sides, strict=True)
        }
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        request |= {"relation": relation, "complex": speaks_of_complex(self.question)}
        reply = self.ask(request, left)
        if "equal" in reply:
            return reply["equal"] is True
        if "unparsed" in reply:
            gold = reply["unparsed"] == "gold"
            side = str(sides[0 if gold else 1])[:80]
            whose = "the gold answer" if gold else "the final answer"
            raise Unreadable(f"{whose} {side!r} {reply['reason']}")
        raise Unreadable(f"{reply.get('failed')}")


def _prepared(side: Side) -> object:
    """Decimals and degrees as what they are in formulas."""
    if isinstance(side, dict):
        return {word: [_prepared(part) for part in parts] for word, parts in side.items()}
    if not isinstance(side, str):
        return [
            [_prepared(part) if len(part) > 1 or part.isalnum() else part for part in piece]
            for piece in side
        ]
    if side.count(":") == 1:
        side = "\\frac{{{}}}{{{}}}".format(*side.split(":"))
    if re.search(r"[)}\]] ?\.\d", side):
        raise Unreadable("has a decimal fraction without a digit before its point in a product")
    return exact_decimals(DEGREES.sub(r"(\\frac{\1 \\pi}{180})", side))


def _names_coordinates(gold: Answer, answer: Answer) -> bool:
    """Whether the answer is x = 3, y = 4 beside the point (3, 4)."""
    names = [item.name for item in answer.items]
    return (
        gold.kind is Kind.TUPLE
        and gold.brackets == "()"
        and answer.kind is Kind.LIST
        and answer.brackets != SET
        and "" not in names
        and names == sorted(set(names))
    )


def _is_bare_number(side: Answer) -> bool:
    return PLAIN_NUMBER.fullmatch(side.text) is not None and not (
        side.unit or side.name or side.items or side.kind is not Kind.SCALAR
    )


def _is_column(gold: Answer, answer: Answer) -> bool:
    """Whether one is a column of a matrix and the other one the same vector's coordinates."""
    sides = {side.kind: side for side in (gold, answer)}
    if sides.keys() != {Kind.MATRIX, Kind.TUPLE} or sides[Kind.TUPLE].brackets != "()":
        return False
    return sides[Kind.MATRIX].brackets == f"{len(sides[Kind.TUPLE].items)}x1"


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


def _without_plain_choice(gold: Answer, answer: Answer) -> tuple[Answer, Answer] | None:
    """As `_as_values`, of "(B) 12", which may be a product elsewhere: the gold answer is the letter
    of a choice, or has no such letter."""
    match = PLAIN_CHOICE.fullmatch(answer.text)
    if match is None or gold.kind not in (Kind.SCALAR, Kind.WORDS):
        return None
    if re.fullmatch(r"\(?[A-Za-z]\)?", gold.text) and not gold.unit and not gold.name:
        letters = (gold.text.strip("()"), match[1])
        ours, theirs = (Answer(kind=Kind.WORDS, text=letter.casefold()) for letter in letters)
        return ours, theirs
    if match[1] in gold.text:
        return None
    scalar = answer.kind is Kind.SCALAR
    return gold, replace(answer, text=match[2]) if scalar else read_part(match[2])


def _may_be_alike(gold: Answer, answer: Answer) -> bool:
    """Whether two kinds may be the same in a notation that is not compared: 3i + 4j in bold letters
    and (3, 4), a set by its condition, 101_2 and the digits alone, an approximation."""
    sides = {side.kind: side for side in (gold, answer)}
    if Kind.BASED in sides and Kind.SCALAR in sides:
        return sides[Kind.BASED].text.partition("_")[0] == sides[Kind.SCALAR].text.lstrip("0")
    if {Kind.TUPLE, Kind.MATRIX} & sides.keys() and Kind.SCALAR in sides:
        return VECTORS.search(sides[Kind.SCALAR].text) is not None
    if sides.keys() == {Kind.TUPLE, Kind.MATRIX}:
        return sides[Kind.MATRIX].brackets == f"1x{len(sides[Kind.TUPLE].items)}"
    equation = sides.get(Kind.EQUATION)
    if equation is None:
        return False
    return bool(equation.bound) or "\\approx" in equation.text


def _bare_and_round(gold: Answer, answer: Answer) -> bool:
    """Whether one is 1, 2, 3 and the other one (1, 2, 3), which is no interval."""
    sides = {side.kind: side.brackets for side in (gold, answer)}
    return sides[Kind.LIST] == "" and sides[Kind.TUPLE] == "()" and len(gold.items) > 2


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
