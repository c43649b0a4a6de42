"""Formulas made at random together with their exact values: right is right, and only right is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

from data.types import Problem
from rewards.verifiers.math_answers import MathVerifier

VERIFIER = MathVerifier(seconds=20, workers=1)
Made = tuple[str, Fraction]


def whole(rng: random.Random) -> Made:
    value = rng.randint(1, 12)
    return str(value), Fraction(value)


def bracketed(rng: random.Random, depth: int) -> Made:
    text, value = total(rng, rng.randint(1, 2), depth - 1)
    return rng.choice(["({})", "[{}]", "\\left({}\\right)"]).format(text), value


def root(rng: random.Random) -> Made:
    value = rng.randint(1, 9)
    return rng.choice([f"\\sqrt{{{value**2}}}", f"\\sqrt[3]{{{value**3}}}"]), Fraction(value)


def fraction(rng: random.Random, depth: int) -> Made:
    over, under = total(rng, 1, depth - 1), total(rng, 1, depth - 1)
    if under[1] == 0:
        return fraction(rng, depth)
    name = rng.choice(["\\frac", "\\dfrac", "\\tfrac"])
    return f"{name}{{{over[0]}}}{{{under[0]}}}", over[1] / under[1]


def binomial(rng: random.Random) -> Made:
    n = rng.randint(1, 7)
    k = rng.randint(0, n)
    return rng.choice([f"\\binom{{{n}}}{{{k}}}", f"{{{n} \\choose {k}}}"]), Fraction(
        math.comb(n, k)
    )


def power(rng: random.Random) -> Made:
    base, exponent = rng.randint(1, 6), rng.randint(0, 3)
    text = rng.choice([f"{base}^{exponent}", f"{base}^{{{exponent}}}", f"({base})^{exponent}"])
    return text, Fraction(base**exponent)


def magnitude(rng: random.Random) -> Made:
    value = rng.randint(1, 9)
    return f"|-{value}|", Fraction(value)


SIMPLE: list[Callable[[random.Random], Made]] = [whole, root, binomial, power, magnitude]


def factor(rng: random.Random, depth: int) -> Made:
    if depth > 0 and rng.random() < 0.4:
        return rng.choice([bracketed, fraction])(rng, depth)
    return rng.choice(SIMPLE)(rng)


def product(rng: random.Random, length: int, depth: int) -> Made:
    text, value = factor(rng, depth)
    for _ in range(length - 1):
        more, another = factor(rng, depth)
        # A number behind a number or a power, and a fraction behind a whole number, are written
        # apart: they would be something else.
        apart = more[0].isdigit() or (text[-1].isdigit() and more.startswith(("\\", "{", "|")))
        text += (rng.choice(["\\cdot ", " \\times "]) if apart else rng.choice(["", " "])) + more
        value *= another
    return text, value


def total(rng: random.Random, length: int, depth: int) -> Made:
    text, value = product(rng, rng.randint(1, 2), depth)
    for _ in range(length - 1):
        more, term = product(rng, rng.randint(1, 2), depth)
        sign = rng.choice("+-")
        text, value = f"{text} {sign} {more}", value + (term if sign == "+" else -term)
    return text, value


def wrong_verdicts(count: int, seed: int) -> tuple[list[str], int]:
    """Of `count` formulas, each beside its value and beside values that are not it; and how many
    were not judged."""
    rng = random.Random(seed)
    faults: list[str] = []
    unjudged = 0
    for _ in range(count):
        text, value = total(rng, rng.randint(1, 3), 2)
        near = {value + 1, value - 1, -value, 2 * value, value + Fraction(1, 7)} - {value}
        for other in (value, rng.choice(sorted(near))):
            problem = Problem(id="p", prompt="", answer=str(other))
            verdict = VERIFIER.verify(problem, f"\\boxed{{{text}}}")
            unjudged += verdict.outcome.value == "unverifiable"
            if verdict.correct != (other == value):
                faults.append(f"{other} | {text} | {verdict.outcome.value} {verdict.reason}")
    return faults, unjudged


def test_formulas_have_their_values() -> None:
    faults, unjudged = wrong_verdicts(150, seed=1)
    assert (faults, unjudged) == ([], 0)
