"""Factors side by side are products, and mixed numbers are not."""

from __future__ import annotations

import pytest

from tests.unit.rewards.verifiers.math_judging import UNVERIFIABLE, boxed

EQUAL = [
    ("1,-4", "\\frac{-3\\pm\\sqrt{3^2-4(1)(-4)}}{2(1)}"),
    ("2,3", "\\frac{5 \\pm \\sqrt{25-4(1)(6)}}{2(1)}"),
    ("-25", "-5\\frac{10}{2}"),
    ("\\frac{11}{2}", "5\\,\\frac{1}{2}"),
    ("\\frac{11}{2}", "5 \\dfrac12"),
    ("\\frac{5}{2}", "(5)\\frac{1}{2}"),
    ("\\frac{11}{2}", "5\\frac12\\text{ cm}"),
    ("0.055", "5\\frac12\\%"),
    ("\\frac{3}{4}", "1.5\\frac12"),
    ("\\frac32", "1\\frac{3}{2}"),
    ("2", "2\\frac{4}{4}"),
    ("25", "5\\cdot\\frac{10}{2}"),
    ("5 1/2", "5\\frac{1}{2}"),
    ("12", "2\\cdot 2(3)"),
    ("\\frac{1}{6}", "1/(2(3))"),
    ("2\\sqrt{6}", "2\\sqrt{2(3)}"),
    ("8", "2^{2(1.5)}"),
    ("7", "2^{2}(1)+3"),
    ("9", "(1+2)(3)"),
    ("6x", "2(3)x"),
    ("6x", "2(3x)"),
    ("6x", "(2x)(3)"),
    ("x^2-1", "(x-1)(x+1)"),
    ("2x^2", "2x(x)"),
    ("15", "\\binom{6}{2}(1)"),
    ("a(b+c)", "ab+ac"),
    ("6", "2(3)"),
    ("6", "(2)(3)"),
    ("6", "(2)3"),
    ("6", "2[3]"),
    ("6", "2\\left(3\\right)"),
    ("18", "3\\binom42"),
    ("18", "3\\dbinom{4}{2}"),
    ("4", "\\sqrt{2(8)}"),
    ("3", "\\frac{-(-5)+\\sqrt{(-5)^2-4(1)(6)}}{2(1)}"),
    ("6", "2\\sqrt{9}"),
    ("6", "2\\sqrt9"),
    ("12", "2\\sqrt{9}(2)"),
    ("3", "\\frac{1}{2}(6)"),
    ("3", "(6)\\frac{1}{2}"),
    ("32", "2^{3}(4)"),
    ("32", "2^3(4)"),
    ("32", "(4)2^3"),
    ("32", "4\\cdot 2^{3}"),
    ("12", "\\sqrt{4}\\sqrt{36}"),
    ("15", "5\\frac{6}{2}"),
    ("25", "5\\frac{10}{2}"),
    ("\\frac{3}{8}", "\\frac12\\frac34"),
    ("12", "2(3!)"),
    ("12", "2\\cdot3!"),
    ("6", "2|{-3}|"),
    ("6", "2|-3|"),
    ("6", "|2||3|"),
    ("24", "2(3)(4)"),
    ("6", "\\frac{2(9)}{3}"),
    ("36", "\\binom42\\binom42"),
    ("6", "2\\lfloor 3.5\\rfloor"),
    ("2.5", "5(0.5)"),
    ("6", "2 (3)"),
    ("6", "{2}(3)"),
    ("\\frac{11}{2}", "5\\frac{1}{2}"),
    ("\\frac{11}{2}", "5 1/2"),
    ("-\\frac{11}{2}", "-5\\frac12"),
    ("\\frac{5}{2}", "5\\left(\\frac12\\right)"),
    ("\\frac{5}{2}", "5\\cdot\\frac12"),
    ("\\frac{5\\pi}{2}", "2\\frac12\\pi"),
    ("10", "5\\frac{-10}{-5}"),
    ("12", "3\\binom{4}{1}"),
    ("16", "2^{2}2^{2}"),
    ("8", "(2)^3"),
    ("9", "3^{2}"),
    ("6", "3\\frac{4}{2}"),
]

NOT_EQUAL = [
    ("\\infty", "3\\infty"),
    ("\\infty", "\\infty^2"),
    ("0", "\\frac{1}{\\infty}"),
    ("n:\\infty", "n\\pi:\\infty"),
    ("\\sqrt{0}", "\\sqrt0.51"),
    ("2^{2^{3}}", "2^2^3"),
    ("x>1^{2}^{2}", "x>1"),
    ("2", "\\frac{5 \\pm \\sqrt{25-4(1)(6)}}{2(1)}"),
    ("-10", "-5\\frac{10}{2}"),
    ("\\frac{11}{2}", "(5)\\frac{1}{2}"),
    ("2", "1.5\\frac12"),
    ("\\frac52", "1\\frac{3}{2}"),
    ("3", "2\\frac{4}{4}"),
    ("5 1/2", "5/2"),
    ("10", "5 10/2"),
    ("25", "5 10/2"),
    ("6", "(1+2)3"),
    ("5x", "2(3x)"),
    ("5", "2(3)"),
    ("5", "(2)(3)"),
    ("9", "3\\binom42"),
    ("5", "2[3]"),
    ("\\sqrt{10}", "\\sqrt{2(8)}"),
    ("10", "5\\frac{10}{2}"),
    ("\\frac{11}{2}", "5\\left(\\frac12\\right)"),
    ("\\frac52", "5\\frac12"),
    ("23", "2{3}"),
    ("5", "2{3}"),
    ("5", "2\\sqrt{9}"),
    ("23", "{2}{3}"),
    ("8", "3\\frac{10}{2}"),
    ("6", "5\\frac{2}{2}"),
    ("7", "3\\cdot 4"),
    ("\\frac{16}{3}", "5(\\frac13)"),
    ("6", "4 2/1"),
    ("5", "(2)3"),
    ("7", "\\sqrt{4}5"),
    ("5", "2 3"),
    ("5", "2\\;3"),
    ("5", "2\\,3"),
    ("23", "2\\,3"),
    ("13", "1\\binom42 + 6"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_products_have_their_value(gold: str, answer: str) -> None:
    assert boxed(gold, answer).correct, boxed(gold, answer).reason


@pytest.mark.parametrize(("gold", "answer"), NOT_EQUAL)
def test_products_are_no_sums_and_no_other_numbers(gold: str, answer: str) -> None:
    assert not boxed(gold, answer).correct


@pytest.mark.parametrize(
    "answer", ["2 3", "2^10", "x^12", "1/2x", "\\sin x/2", "2{3}", "x2", "1\\!0"]
)
def test_what_has_two_readings_is_unverifiable(answer: str) -> None:
    assert boxed("6", answer).outcome is UNVERIFIABLE
