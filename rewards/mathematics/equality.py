"""Whether two formulas have the same value, and two relations the same solutions, by sympy.

Values without letters: their difference is worked out to a thousand digits. With letters: the
difference is worked out, as exactly, with fixed fractions of both signs in the letters' places.
Relations: a letter that cancels is not forgotten, so x > x is not y > y; what says nothing about
any letter (1 = 2) is not judged.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.mathematics.formula_tokens import NotRead
from rewards.mathematics.formulas import Relation, Relations

sympy: Any = importlib.import_module("sympy")
function: Any = importlib.import_module("sympy.core.function")

DIGITS, MOST_DIGITS = 20, 1000
POINTS = 12
FEWEST_POINTS = 4
Pieces = Sequence[Sequence[Any]]
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


def same_value(gold: Any, answer: Any) -> bool:
    """Raises `NotRead` where it cannot be told."""
    matrices = [getattr(side, "is_Matrix", False) for side in (gold, answer)]
    if any(matrices):
        return (
            all(matrices)
            and gold.shape == answer.shape
            and all(same_value(ours, theirs) for ours, theirs in zip(gold, answer, strict=True))
        )
    if gold == answer:
        return True
    if any(side in (sympy.oo, -sympy.oo) for side in (gold, answer)):
        return False
    found = _is_zero(gold - answer)
    if found is None:
        raise NotRead("cannot be compared by numbers")
    return found


def _is_zero(difference: Any) -> bool | None:
    """None where it cannot be told."""
    difference = _with_letters_for_functions(difference)
    if difference.is_zero:
        return True
    letters = sorted(difference.free_symbols, key=str)
    if not letters:
        return _is_zero_number(difference)
    told = 0
    rng = random.Random(0)
    for number in range(POINTS):
        values = {letter: _fraction(rng, positive=number < POINTS // 3) for letter in letters}
        found = _is_zero_number(difference.subs(values))
        if found is False:
            return False
        told += found is True
    return True if told >= FEWEST_POINTS else None


def _fraction(rng: random.Random, *, positive: bool) -> Any:
    value = sympy.Rational(rng.randint(1, 400), 97)
    return value if positive or rng.random() < 0.4 else -value


def _with_letters_for_functions(difference: Any) -> Any:
    """f(2), of which nothing is known, as a letter of its own."""
    applied = sorted(
        difference.atoms(function.AppliedUndef), key=lambda call: (-call.count_ops(), str(call))
    )
    return difference.xreplace({call: sympy.Symbol(str(call)) for call in applied})


def _is_zero_number(number: Any) -> bool | None:
    if number.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        return None
    value = number.evalf(DIGITS, maxn=MOST_DIGITS)
    parts = value.as_real_imag()
    if not all(part.is_Float or part.is_Integer or part.is_Rational for part in parts):
        return None
    # A precision of 1 says that no digit could be found: it is zero.
    return not any(part != 0 and getattr(part, "_prec", 53) > 1 for part in parts)


def same_relations(gold: Relations, answer: Relations) -> bool:
    """Whether both have the same solutions. Raises `NotRead` where it cannot be told."""
    for side in (gold, answer):
        if not side.names:
            raise NotRead("relates numbers alone")
        held = {str(letter) for part in side.parts for letter in _difference(part).free_symbols}
        if held != set(side.names) and not any(
            part.has(function.AppliedUndef) for p in side.parts for part in (p.left, p.right)
        ):
            raise NotRead("has a letter that cancels")
    if gold.names != answer.names:
        return False
    if _one_to_one(gold.parts, answer.parts):
        return True
    if len(gold.names) == 1:
        (name,) = gold.names
        return _same_set(*(_solutions(side.parts, name) for side in (gold, answer)))
    if len(gold.parts) == len(answer.parts) == 1 and gold.parts[0].sign == answer.parts[0].sign:
        if gold.parts[0].sign in ("=", "!="):
            return _same_zeros(_difference(gold.parts[0]), _difference(answer.parts[0]))
        return False
    raise NotRead("joins relations in another way than the gold answer")


def _difference(part: Relation) -> Any:
    return sympy.expand(part.left - part.right)


def _one_to_one(ours: Sequence[Relation], theirs: Sequence[Relation]) -> bool:
    """Whether each relation of one is one of the other times a number."""
    left = list(theirs)
    for part in ours:
        found = next((other for other in left if _is_multiple(part, other)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _is_multiple(part: Relation, other: Relation) -> bool:
    over, under = _difference(part), _difference(other)
    ratio = sympy.cancel(over / under)
    if not ratio.is_number or ratio.is_zero or not ratio.is_finite:
        return False
    if part.sign in ("=", "!="):
        return part.sign == other.sign
    if not ratio.is_real:
        return False
    return part.sign == (other.sign if ratio.is_positive else FLIPPED[other.sign])


def _same_zeros(gold: Any, answer: Any) -> bool:
    """Of two expressions in several letters. Polynomials and quotients of them are the same where
    their factors are, and no zero is lost to a divisor; of others, only multiples are."""
    (over, under), (over2, under2) = (
        sympy.fraction(sympy.together(side)) for side in (gold, answer)
    )
    letters = sorted((gold.free_symbols | answer.free_symbols), key=str)
    if not all(side.is_polynomial(*letters) for side in (over, under, over2, under2)):
        return False
    radicals = [sympy.Poly(side, *letters).sqf_part().as_expr() for side in (over, over2)]
    if not sympy.cancel(radicals[0] / radicals[1]).is_number:
        return False
    return all(
        side.is_number or sympy.groebner([radicals[0], side], *letters).exprs == [1]
        for side in (under, under2)
    )


def _solutions(parts: Sequence[Relation], name: str) -> Any:
    """The real numbers that solve all of them."""
    letter = sympy.Symbol(name, real=True)
    found = sympy.S.Reals
    for part in parts:
        left, right = (side.subs(sympy.Symbol(name), letter) for side in (part.left, part.right))
        if part.sign in ("=", "!="):
            solved = sympy.solveset(left - right, letter, sympy.S.Reals)
            if part.sign == "!=":
                solved = sympy.S.Reals - solved
        else:
            relation = sympy.Rel(left, right, part.sign)
            solved = sympy.solve_univariate_inequality(relation, letter, relational=False)
        found = found.intersect(solved)
    return found


def _same_set(ours: Any, theirs: Any) -> bool:
    if ours == theirs:
        if ours is sympy.S.EmptySet:
            raise NotRead("has no solution")
        return True
    known = (sympy.Interval, sympy.FiniteSet, sympy.Union, sympy.EmptySet, sympy.Reals.__class__)
    if not all(isinstance(side, known) for side in (ours, theirs)):
        raise NotRead("has solutions that are not found")
    return all(side - other is sympy.S.EmptySet for side, other in ((ours, theirs), (theirs, ours)))


def set_of_pieces(pieces: Sequence[Sequence[Any]]) -> Any:
    """The union of intervals ("(", left, right, "]") and finite sets ("{", values...)."""
    found: Any = sympy.S.EmptySet
    for first, *rest in pieces:
        if first == "{":
            found = found + sympy.FiniteSet(*rest)
            continue
        left, right, last = rest
        if not (left.is_extended_real and right.is_extended_real) or left.free_symbols:
            raise NotRead("has an interval's end that is no number")
        found = found + sympy.Interval(left, right, first == "(", last == ")")
    return found


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Relations of which any, or all, hold."""

    any_of: bool
    relations: tuple[Relations, ...]


def same_solutions(gold: Relations | Pieces | Joined, answer: Relations | Pieces | Joined) -> bool:
    """Of relations in one letter, and sets. Raises `NotRead`."""
    sides = (gold, answer)
    names = {name for side in sides for name in _names(side)}
    if len(names) != 1:
        raise NotRead("relates several letters, or none")
    (name,) = names
    return _same_set(*(_set_of(side, name) for side in sides))


def _names(side: Relations | Pieces | Joined) -> frozenset[str]:
    if isinstance(side, Relations):
        return side.names
    if isinstance(side, Joined):
        return frozenset(name for part in side.relations for name in part.names)
    return frozenset()


def _set_of(side: Relations | Pieces | Joined, name: str) -> Any:
    if isinstance(side, Relations):
        return _solutions(side.parts, name)
    if not isinstance(side, Joined):
        return set_of_pieces(side)
    found: Any = sympy.S.EmptySet if side.any_of else sympy.S.Reals
    for part in side.relations:
        if not part.names:
            raise NotRead("relates numbers alone")
        solved = _solutions(part.parts, name)
        found = found.union(solved) if side.any_of else found.intersect(solved)
    return found
