"""The imaginary unit, unions as inequalities, units of one letter, and other single decisions."""

from __future__ import annotations

import pytest

from data.types import Outcome
from tests.unit.rewards.verifiers.math_judging import boxed

COMPLEX = "Let $z$ be a complex number."
UNION = "(-\\infty,1)\\cup(2,\\infty)"


@pytest.mark.parametrize(
    ("gold", "answer", "question"),
    [
        ("-1", "i^2", ""),
        ("i^2", "-1", ""),
        ("-1", "e^{i\\pi}", ""),
        ("e^{i\\pi}", "-1", ""),
        ("2i", "\\sqrt{-4}", ""),
        ("3+4i", "(2+i)^2", ""),
        ("5", "|3+4i|", ""),
        ("-i", "i^3", ""),
        ("-\\frac{i}{2}", "\\frac{1}{2\\mathrm{i}}", ""),
        ("\\frac{1}{2}+\\frac{\\sqrt3}{2}i", "e^{i\\pi/3}", ""),
        ("e^{i\\theta}", "\\cos\\theta+i\\sin\\theta", ""),
        ("a^2+b^2", "(a+bi)(a-bi)", COMPLEX),
        ("a+bi", "bi+a", ""),
        ("P(1+i)^2", "(i+1)^2 P", "Interest rate $i$."),
        ("3i+2j", "2j+3i", ""),
        ("I^2R", "RI\\cdot I", ""),
        ("\\frac{I_1^2}{R}", "I_1\\cdot\\frac{I_1}{R}", ""),
        ("x_I^2", "x_I x_I", ""),
    ],
)
def test_the_imaginary_unit(gold: str, answer: str, question: str) -> None:
    assert boxed(gold, answer, question).correct


@pytest.mark.parametrize(
    ("gold", "answer", "question"),
    [
        ("1", "i^2", ""),
        ("2i", "-2i", ""),
        ("1+2i", "1-2i", ""),
        ("e^{i\\pi/3}", "e^{-i\\pi/3}", ""),
        ("e^{i\\theta}", "\\cos\\theta-i\\sin\\theta", ""),
        ("10^{-30}i", "2\\cdot 10^{-30}i", ""),
        # variables
        ("P(1+i)^2", "2iP", ""),
        ("a^2+b^2", "(a+bi)(a-bi)", ""),
        ("3i+2j", "2j+3\\sqrt{-1}", ""),
        ("-R", "I^2R", ""),
        ("-R", "I^2R", COMPLEX),
        ("2i", "2I", ""),
        ("\\sqrt{-4}", "2I", ""),
        ("I^2R", "IR", ""),
        ("I_1R", "I_2R", ""),
        ("-1", "j^2", COMPLEX),
    ],
)
def test_what_the_imaginary_unit_is_not(gold: str, answer: str, question: str) -> None:
    assert not boxed(gold, answer, question).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (UNION, "x<1 \\text{ or } x>2"),
        (UNION, "x > 2 or x < 1"),
        ("x<1 \\text{ or } x>2", UNION),
        ("(-\\infty,1]\\cup(2,3)", "x\\le 1 \\text{ or } 2<x<3"),
        ("(-\\infty,-\\sqrt2)\\cup(\\frac12,\\infty)", "y>\\frac12 \\text{ or } y<-\\sqrt{2}"),
        ("(-\\infty,1)\\cup\\{5\\}", "x<1 \\text{ or } x=5"),
    ],
)
def test_a_union_is_its_inequalities(gold: str, answer: str) -> None:
    assert boxed(gold, answer).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (UNION, "x<1 \\text{ and } x>2"),
        (UNION, "x<1, x>2"),
        (UNION, "x<1 \\text{ or } y>2"),
        ("x<1 \\text{ or } y>2", UNION),
        (UNION, "x\\le 1 \\text{ or } x>2"),
        (UNION, "x>1 \\text{ or } x<2"),
        (UNION, "x<1 \\text{ or } x>2 \\text{ or } x>3"),
        ("x<1 \\text{ and } x>2", UNION),
        ("(1,2)", "x>1 \\text{ or } x<2"),
        ("(-\\infty,1)\\cup\\{5\\}", "x<1 \\text{ or } y=5"),
    ],
)
def test_what_a_union_is_not(gold: str, answer: str) -> None:
    assert not boxed(gold, answer).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5\\text{ N}", "5"),
        ("5\\text{ N}", "5\\text{ newtons}"),
        ("5\\text{ N}", "5N"),
        ("5N", "5\\text{ N}"),
        ("5\\text{ newtons}", "5\\mathrm{N}"),
        ("2.5\\times 10^3\\text{ J}", "2500"),
        ("5\\text{ N/m}", "5\\text{ newtons per meter}"),
        ("60\\text{ Hz}", "60"),
    ],
)
def test_units_of_one_letter(gold: str, answer: str) -> None:
    assert boxed(gold, answer).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5\\text{ N}", "6\\text{ N}"),
        ("5\\text{ N}", "5\\text{ J}"),
        ("5\\text{ N}", "5n"),
        ("5N", "5"),
        ("5", "5N"),
        ("5", "5\\text{ K}"),
        ("5", "5\\text{M}"),
        ("5xN", "5x"),
    ],
)
def test_what_a_unit_of_one_letter_is_not(gold: str, answer: str) -> None:
    assert boxed(gold, answer).outcome is not Outcome.CORRECT


@pytest.mark.parametrize(
    ("gold", "answer", "question"),
    [
        ("(-\\infty,\\infty)", "\\mathbb{R}", ""),
        ("\\mathbb{R}", "x \\in (-\\infty, \\infty)", ""),
        ("(-\\infty,\\infty)", "\\text{all real numbers}", ""),
        ("\\emptyset", "\\text{No solution}", ""),
        ("\\text{no solution}", "\\emptyset", ""),
        ("\\text{DNE}", "\\text{does not exist}", ""),
        ("(-\\infty,1)\\cup(1,\\infty)", "x \\neq 1", ""),
        ("x \\ne 1", "(1,\\infty)\\cup(-\\infty,1)", ""),
        ("x \\ne 1", "x \\neq 1", ""),
        ("5", "\\textbf{5}", ""),
        ("5", "\\text{5 cm}", ""),
        ("3:30 \\text{ PM}", "3:30 PM", ""),
        ("3:30", "03:30", "What time is it?"),
        ("5:3", "10:6", "What is the ratio?"),
        ("0.333...", "0.333...", ""),
        ("A^T", "A^T", ""),
        ("\\frac{1}{2}x", "x/2", ""),
        ("1/2x", "1/2x", ""),
    ],
)
def test_other_spellings(gold: str, answer: str, question: str) -> None:
    assert boxed(gold, answer, question).correct


@pytest.mark.parametrize(
    ("gold", "answer", "question"),
    [
        ("2^T", "2", ""),  # a transpose to the parser
        ("x^{T}", "x", ""),
        ("A^\\top", "A", ""),
        ("f^{(2)}(x)", "f^2(x)", ""),
        ("\\frac{1}{2x}", "1/2x", ""),  # which of the two, nobody knows
        ("\\frac{1}{2}x", "1/2x", ""),
        ("3:30 \\text{ PM}", "1:10 \\text{ PM}", ""),
        ("3:30 \\text{ PM}", "3:30 \\text{ AM}", ""),
        ("12:30", "2:5", "What time is it?"),
        ("12:30", "14:35", "At how many o'clock?"),
        ("0.333", "0.333...", ""),
        ("5", "5\\ldots", ""),
        ("1,2,3", "1,2,3,...", ""),
        ("\\emptyset", "\\{\\emptyset\\}", ""),
        ("\\emptyset", "0", ""),
        ("(-\\infty,\\infty)", "(-\\infty,0)", ""),
        ("(-\\infty,1)\\cup(1,\\infty)", "x \\neq 2", ""),
        ("(-\\infty,1)\\cup[1,\\infty)", "x \\neq 1", ""),
        ("x \\ne 1", "(-\\infty,1)", ""),
        ("5", "\\text{5 or 6}", ""),
    ],
)
def test_what_is_no_other_spelling(gold: str, answer: str, question: str) -> None:
    assert not boxed(gold, answer, question).correct
