# ruff: noqa: E501 (one rewriting a line)
"""Every gold answer of GSM8K's and MATH-500's test files: itself, rewritten, and nearly missed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from data.types import Problem
from rewards.verifiers.math_answers import MathVerifier

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"
pytestmark = pytest.mark.usefixtures("published_data")
VERIFIER = MathVerifier(seconds=30, workers=1)
Rewrite = Callable[[str], str | None]
NUMBER = r"-?\d+"
FRACTION = re.compile(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}")
PAIR = re.compile(r"\\?l?e?f?t?\( ?([^,(]+), ?([^,)]+) ?\\?r?i?g?h?t?\)")
UNION = re.compile(r"(\(.*\)) \\cup (\(.*\))")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHARED / name).open(encoding="utf-8")]


def gsm8k() -> list[Problem]:
    return [
        Problem(id=f"gsm8k-{i}", prompt=row["question"], answer=row["answer"].split("#### ")[1])
        for i, row in enumerate(rows("gsm8k_test.jsonl"))
    ]


def math500() -> list[Problem]:
    return [
        Problem(id=row["unique_id"], prompt=row["problem"], answer=row["answer"])
        for row in rows("math500_test.jsonl")
    ]


def integer(gold: str) -> int | None:
    return int(gold.replace(",", "")) if re.fullmatch(r"-?\d{1,3}(,\d{3})*|-?\d+", gold) else None


def fraction(gold: str) -> Fraction | None:
    match = FRACTION.fullmatch(gold)
    return Fraction(int(match[1] + match[2]), int(match[3])) if match else None


def whole(change: Callable[[int], str | None]) -> Rewrite:
    return lambda gold: None if (n := integer(gold)) is None else change(n)


def ratio(change: Callable[[Fraction], str | None]) -> Rewrite:
    return lambda gold: None if (f := fraction(gold)) is None else change(f)


def swap(pattern: str, replacement: str) -> Rewrite:
    def change(gold: str) -> str | None:
        changed = re.sub(pattern, replacement, gold)
        return changed if changed != gold else None

    return change


def as_decimal(value: Fraction) -> str | None:
    under = value.denominator
    for prime in (2, 5):
        while under % prime == 0:
            under //= prime
    return f"{float(value):.12f}".rstrip("0") if under == 1 else None


def listed(gold: str) -> list[str] | None:
    return (
        gold.split(",") if re.fullmatch(r"-?\d+(, ?-?\d+)+", gold) and not integer(gold) else None
    )


def boxed(change: Rewrite) -> Rewrite:
    return lambda gold: None if (text := change(gold)) is None else f"So it is $\\boxed{{{text}}}$."


EQUIVALENT: dict[str, Rewrite] = {
    "a line with ####": lambda gold: f"some steps\n#### {gold}",
    "a sentence": lambda gold: f"some steps\nThe final answer is: ${gold}$.",
    "the answer is": lambda gold: f"So the answer is {gold}",
    "text around the box": lambda gold: f"Thus \\[ \\boxed{{ {gold} }} \\] as was asked.",
    "an earlier box": lambda gold: f"First $\\boxed{{-77777}}$. Then $\\boxed{{{gold}}}$",
    "dollars in the box": boxed(lambda gold: f"${gold}$" if "$" not in gold else None),
    "sizes": boxed(lambda gold: f"\\displaystyle {gold}"),
    "trailing zeros": boxed(whole(lambda n: f"{n}.00")),
    "thousands separators": boxed(whole(lambda n: f"{n:,}" if n > 999 else None)),
    "thin spaces": boxed(whole(lambda n: f"{n:,}".replace(",", "{,}") if n > 999 else None)),
    "a name": boxed(lambda gold: f"x = {gold}" if integer(gold) is not None else None),
    "a chain": boxed(whole(lambda n: f"x = {2 * n}/2 = {n}")),
    "a product": boxed(whole(lambda n: f"\\frac{{{3 * n}}}{{3}}")),
    "a sum": boxed(whole(lambda n: f"{n - 1} + 1" if 0 < n < 60 else None)),
    "a unit": boxed(whole(lambda n: f"{n}\\text{{ apples}}")),
    "a plain unit": boxed(whole(lambda n: f"{n} apples")),
    "a plus": boxed(whole(lambda n: f"+{n}" if n > 0 else None)),
    "decimal": boxed(ratio(as_decimal)),
    "slash": boxed(ratio(lambda f: f"{f.numerator}/{f.denominator}")),
    "dfrac": boxed(swap(r"\\frac", r"\\dfrac")),
    "a fraction not reduced": boxed(ratio(lambda f: f"\\frac{{{6 * f.numerator}}}{{{6 * f.denominator}}}")),
    "a mixed number": boxed(
        ratio(
            lambda f: (
                f"{f.numerator // f.denominator}\\frac{{{f.numerator % f.denominator}}}{{{f.denominator}}}"
                if f > 1
                else None
            )
        )
    ),
    "percent": boxed(
        ratio(lambda f: f"{d}\\%" if f > 0 and (d := as_decimal(100 * f)) else None)
    ),
    "a negative numerator": boxed(swap(r"^-\\frac\{(\d+)\}", r"\\frac{-\1}")),
    "without degrees": boxed(swap(r"\^\\circ$", "")),
    "degrees in a word": boxed(swap(r"\^\\circ$", r"\\text{ degrees}")),
    "a degree sign": boxed(swap(r"\^\\circ$", "\u00b0")),
    "without unit": boxed(swap(r" ?\\(?:mbox|text)\{ [a-z]+\}(\^2)?$", "")),
    "without currency": boxed(swap(r"^\\\$", "")),
    "a list in another order": boxed(lambda gold: ", ".join(reversed(found)) if (found := listed(gold)) else None),
    "a list as a set": boxed(lambda gold: f"\\{{{gold}\\}}" if listed(gold) else None),
    "a list with and": boxed(
        lambda gold: " \\text{ and } ".join(found) if (found := listed(gold)) else None
    ),
    "both signs": boxed(
        lambda gold: (
            f"{gold.replace(chr(92) + 'pm', '-')}, {gold.replace(chr(92) + 'pm', '+')}"
            if "\\pm" in gold and "," not in gold
            else None
        )
    ),
    "infinity with a plus": boxed(swap(r", ?\\infty", r", +\\infty")),
    "a union's other order": boxed(swap(UNION.pattern, r"\2 \\cup \1")),
    "a union sign": boxed(swap(r"\\cup", "\u222a")),
    "left and right": boxed(lambda gold: f"\\left{gold[:-1]}\\right{gold[-1]}" if re.fullmatch(r"[(\[][^()\[\]]*[)\]]", gold) else None),
    "spaces in a tuple": boxed(swap(r"(?<=[\d}]),(?=[-\d\\])(?!\d{3})(?!\\!)", r" ,\\; ")),
    "a radical's product": boxed(swap(r"(\d) ?\\sqrt", r"\1 \\cdot \\sqrt")),
    "a radical's power": boxed(swap(r"\\sqrt\{(\d+)\}", r"(\1)^{1/2}")),
    "a radical's whole": boxed(
        lambda gold: f"\\sqrt{{{int(m[1]) ** 2 * int(m[2])}}}"
        if (m := re.fullmatch(r"(\d+) ?\\sqrt\{(\d+)\}", gold))
        else None
    ),
    "square brackets of a matrix": boxed(swap("pmatrix", "bmatrix")),
    "a matrix with frac": boxed(lambda gold: re.sub(r"(\d+)/(\d+)", r"\\frac{\1}{\2}", gold) if "/" in gold and "matrix" in gold else None),
    "the imaginary part first": boxed(swap(r"^(-?\d+) ?\+ ?(\d*)i$", r"\2i + \1")),
    "the terms the other way": boxed(swap(r"^(\d*[a-z]) ?\+ ?(\d+)$", r"\2 + \1")),
    "a pi sign": boxed(swap(r"\\pi\b", "\u03c0")),
    "a minus sign": boxed(swap(r"^-(?=\d)", "\u2212")),
    "words without a font": boxed(swap(r"^\\text\{\(?(\w+)\)?\}$", r"\1")),
    "words in bold": boxed(swap(r"^\\text\{", r"\\textbf{")),
    "a subscript's braces": boxed(swap(r"^(\d+)_(\d)$", r"\1_{\2}")),
    "a set's membership": boxed(swap(r"^x \\in ", "")),
}  # fmt: skip

WRONG: dict[str, Rewrite] = {
    "one more": boxed(whole(lambda n: str(n + 1))),
    "one less": boxed(whole(lambda n: str(n - 1))),
    "another sign": boxed(whole(lambda n: str(-n) if n else None)),
    "ten times": boxed(whole(lambda n: f"{n}0" if n else None)),
    "a digit before": boxed(whole(lambda n: f"1{n}" if n >= 0 else None)),
    "a digit less": boxed(whole(lambda n: str(n)[1:] if n > 9 and int(str(n)[1:]) != n else None)),
    "a hair more": boxed(whole(lambda n: f"{n}.0000001")),
    "a tenth more": boxed(whole(lambda n: f"{n}.1")),
    "a percentage": boxed(whole(lambda n: f"{n}\\% of it" if n else None)),
    "thousands": boxed(whole(lambda n: f"{n} thousand" if n else None)),
    "a hedge": boxed(whole(lambda n: f"{n} \\text{{ or }} {n + 1}")),
    "a hedge in boxes": whole(lambda n: f"$\\boxed{{{n}}}$ or $\\boxed{{{n + 1}}}$"),
    "a later box": whole(lambda n: f"$\\boxed{{{n}}}$, no: $\\boxed{{{n + 2}}}$"),
    "a false chain": boxed(whole(lambda n: f"x = {n + 1} = {n}")),
    "a false equation": boxed(whole(lambda n: f"{n} + 1 = {n}")),
    "a pair": boxed(whole(lambda n: f"({n}, {n})")),
    "a power": boxed(whole(lambda n: f"{n}^2" if n not in (-1, 0, 1) else None)),
    "a variable": boxed(whole(lambda n: f"{n}x" if n else None)),
    "the upside down": boxed(ratio(lambda f: f"\\frac{{{f.denominator}}}{{{f.numerator}}}" if abs(f) != 1 else None)),
    "a rounded decimal": boxed(ratio(lambda f: f"{float(f):.3f}" if Fraction(f"{float(f):.3f}") != f else None)),
    "another numerator": boxed(ratio(lambda f: f"\\frac{{{f.numerator + 1}}}{{{f.denominator}}}")),
    "a fraction's digits": boxed(ratio(lambda f: f"{f.numerator}{f.denominator}")),
    "an element missing": boxed(lambda gold: found[0] if (found := listed(gold)) else None),
    "an element too many": boxed(lambda gold: f"{gold}, 99" if listed(gold) else None),
    "an element changed": boxed(lambda gold: f"{gold}1" if listed(gold) else None),
    "a tuple of a list": boxed(lambda gold: f"({gold})" if listed(gold) else None),
    "a tuple's other order": boxed(lambda gold: f"({m[2]}, {m[1]})" if (m := PAIR.fullmatch(gold)) and "infty" not in gold and m[1].strip() != m[2].strip() else None),
    "a list of a tuple": boxed(lambda gold: f"{m[1]}, {m[2]}" if (m := PAIR.fullmatch(gold)) else None),
    "an interval's right end": boxed(lambda gold: gold[:-1] + {")": "]", "]": ")"}[gold[-1]] if re.fullmatch(r"[(\[][^()\[\]]*[)\]]", gold) and "\\right" not in gold else None),
    "an interval's left end": boxed(lambda gold: {"(": "[", "[": "("}[gold[0]] + gold[1:] if re.fullmatch(r"[(\[][^()\[\]]*[)\]]", gold) and "\\left" not in gold else None),
    "half of a union": boxed(swap(UNION.pattern, r"\1")),
    "one sign of two": boxed(swap(r"\\pm", "+")),
    "the other sign": boxed(swap(r"^(.*) \\pm ", r"-\1 \\pm ")),
    "another radicand": boxed(swap(r"\\sqrt\{?(\d+)\}?", r"\\sqrt{\g<1>1}")),
    "no radical": boxed(swap(r"\\sqrt", "")),
    "no pi": boxed(swap(r"\\pi", "")),
    "a number for pi": boxed(swap(r"\\pi", "3.14159265358979")),
    "the conjugate": boxed(lambda gold: gold.replace("+", "~").replace("-", "+").replace("~", "-") if re.fullmatch(r"-?\d+ ?[-+] ?\d*i", gold) else None),
    "radians": boxed(swap(r"^(\d+)\^\\circ$", r"\1\\text{ radians}")),
    "another unit": boxed(swap(r"\\(?:mbox|text)\{ (?:inches|cents|cm)\}", r"\\text{ feet}")),
    "cents for dollars": boxed(lambda gold: gold.replace("\\$", "") + "\\text{ cents}" if "\\$" in gold else None),
    "an element of a matrix": boxed(lambda gold: gold.replace("pmatrix} -", "pmatrix} ", 1) if "pmatrix} -" in gold else None),
    "a row less": boxed(swap(r" \\\\ [^\\&]* (?=\\end)", " ")),
    "a determinant": boxed(lambda gold: gold.replace("pmatrix", "vmatrix") if "&" in gold else None),
    "another word": boxed(swap(r"^\\text\{\(?(\w+)\)?\}$", r"\\text{un\1}")),
    "a letter on": boxed(lambda gold: f"({chr(ord(m[1]) + 1)})" if (m := re.fullmatch(r"\\text\{\((\w)\)\}", gold)) else None),
    "another base": boxed(swap(r"^(\d+)_\{?(\d)\}?$", r"\1_{10}")),
    "no base": boxed(swap(r"^(\d+)_\{?(\d)\}?$", r"\1")),
    "another coefficient": boxed(swap(r"^(\d)([a-z])", r"1\1\2")),
    "another exponent": boxed(swap(r"([a-z])\^(\d)", r"\1^1\2")),
    "another variable": boxed(lambda gold: gold.replace("x", "w") if re.search(r"(?<![a-z\\])x\^", gold) else None),
    "an empty box": lambda gold: "\\boxed{}",
    "no mark": lambda gold: f"I think of {gold} and of others",
    "a box cut off": lambda gold: f"It is \\boxed{{{gold}",
}  # fmt: skip


@pytest.mark.parametrize(("read", "count"), [(gsm8k, 1319), (math500, 500)])
def test_every_answer_is_itself(read: Callable[[], list[Problem]], count: int) -> None:
    problems = read()
    assert len(problems) == count
    for marks in ("\\boxed{{{}}}", "so\n#### {}"):
        outcomes = [VERIFIER.verify(p, marks.format(p.answer)) for p in problems]
        assert [
            (p.answer, v) for p, v in zip(problems, outcomes, strict=True) if not v.correct
        ] == []


def test_published_solutions_are_correct() -> None:
    for row, problem in zip(rows("gsm8k_test.jsonl"), gsm8k(), strict=True):
        assert VERIFIER.verify(problem, row["answer"]).correct, row["answer"]
    for row, problem in zip(rows("math500_test.jsonl"), math500(), strict=True):
        assert VERIFIER.verify(problem, row["solution"]).correct, row["solution"]


def assert_rewritings_are_correct(problems: list[Problem]) -> None:
    for problem in problems:
        for kind, rewrite in EQUIVALENT.items():
            solution = rewrite(problem.answer)
            if solution is not None and "None" not in solution:
                verdict = VERIFIER.verify(problem, solution)
                assert verdict.correct, (kind, problem.answer, solution, verdict.reason)


def test_equivalent_rewritings_are_correct() -> None:
    """Some of both; tests/integration/test_all_rewritings.py takes all of them."""
    assert_rewritings_are_correct(gsm8k()[::16] + math500()[::4])


def test_every_kind_applies_somewhere() -> None:
    for kinds, least in ((EQUIVALENT, 15), (WRONG, 20)):
        used = [
            kind for kind, rewrite in kinds.items() if any(rewrite(p.answer) for p in math500())
        ]
        assert used == list(kinds)
        assert len(used) >= least


def assert_near_misses_are_wrong(problems: list[Problem]) -> None:
    for problem in problems:
        for kind, rewrite in WRONG.items():
            solution = rewrite(problem.answer)
            if solution is not None and "None" not in solution:
                verdict = VERIFIER.verify(problem, solution)
                assert not verdict.correct, (kind, problem.answer, solution)


def test_near_misses_are_never_correct() -> None:
    """Some of both; tests/integration/test_all_rewritings.py takes all of them."""
    assert_near_misses_are_wrong(gsm8k()[::32] + math500()[::4])
