"""The mathematics verifier: every decision, hostile texts, threads, deadlines."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.types import Outcome, Problem
from rewards.mathematics.answers import Unreadable, clean, final_answer
from rewards.mathematics.structure import Kind, exact_decimals, rational, read_answer
from rewards.mathematics.units import canonical, split_unit
from rewards.verifiers.math_answers import MathVerifier
from rewards.verifiers.tally import TALLY
from rewards.verifiers.worker_pool import WorkerDied, WorkerPool
from tests.unit.rewards.verifiers.math_judging import CORRECT, UNVERIFIABLE, WRONG, judge


def boxed(gold: str, answer: str, question: str = "") -> Outcome:
    return judge(gold, f"So $\\boxed{{{answer}}}$", question).outcome


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("a\n#### 72", "72"),
        ("a\n#### 72  \n\n", "72"),
        ("#### Step 1\n\\boxed{5}", "5"),  # a heading, not GSM8K's mark
        ("\\boxed{5}\n#### 6", "6"),  # what comes last
        ("#### $\\boxed{5}$", "5"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{1} or \\boxed{2}", "1, 2"),
        ("$\\boxed{1}$, $\\boxed{2}$ and $\\boxed{3}$", "1, 2, 3"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed 7", "7"),
        ("\\fbox{7}", "7"),
        ("one\nThe final answer is: $7$.", "$7$."),
        ("Answer: 7", "7"),
        ("So the answer is 7 and not 8", "7 and not 8"),
    ],
)
def test_which_text_is_the_answer(solution: str, answer: str) -> None:
    assert final_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("", "no final answer"),
        ("It is 42", "no final answer"),
        ("The answer is 42.\nNow I check it", "no final answer"),
        ("#### 42\nand 43 more", "no final answer"),
        ("####", "empty"),
        ("\\boxed{}", "empty"),
        ("\\boxed{42", "cut off"),
        ("\\boxed{1} \\boxed{2", "cut off"),
        ("\\boxed{" + "1" * 3000 + "}", "at most 2000"),
        ("\\boxed{" + "1" * 10**6 + "}", "over 4000"),
    ],
)
def test_no_answer(solution: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        final_answer(solution)
    verdict = judge("42", solution)
    assert verdict.outcome is UNVERIFIABLE
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("gold", "answer", "outcome"),
    [
        # alternatives
        ("3", "3 \\text{ or } 4", WRONG),
        ("3, 4", "4 \\text{ or } 3", CORRECT),
        ("\\frac{3}{2}", "1\\frac{1}{2} \\text{ or } 1.5", CORRECT),
        # exact numbers
        ("\\frac{1}{3}", "0.333333333", WRONG),
        ("\\frac{1}{3}", "0.\\overline{3}", CORRECT),
        ("\\frac{7}{30}", "0.2\\overline{3}", CORRECT),
        ("0.0000001", "0.0000002", WRONG),
        ("3 1/2", "31/2", WRONG),
        ("3 1/2", "7/2", CORRECT),
        (".0000672", "6.72e-5", CORRECT),
        ("\\sqrt{2} \\cdot 10^{-20}", "\\sqrt{3} \\cdot 10^{-20}", WRONG),
        ("18", "1 8", UNVERIFIABLE),
        ("5", "5\\text{ hours }30\\text{ minutes}", UNVERIFIABLE),
        ("5", "5\\text{ to }\\sqrt{3}", UNVERIFIABLE),
        ("2xy", "2", WRONG),
        ("2 xy", "2", WRONG),
        ("5", "5cm", CORRECT),
        ("5", "5 xz", WRONG),
        ("\\sqrt{x} = -1", "\\sqrt{x} = -2", UNVERIFIABLE),  # both without a solution
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix} x = 3",
         "\\begin{pmatrix} 2 \\\\ 2 \\end{pmatrix} x = 3", UNVERIFIABLE),
        ("4", "14", WRONG),
        ("14", "4", WRONG),
        # names and equations
        ("x=5", "y=5", WRONG),
        ("5", "x = 10/3 = 5", WRONG),
        ("5", "2+3=5", UNVERIFIABLE),
        ("f(x) = 2x+1", "1 + 2x", CORRECT),
        ("y = 2x + 3", "2x - y + 3 = 0", CORRECT),
        ("y = 2x + 3", "2x - y - 3 = 0", WRONG),
        ("5x - 7y + 11z + 4 = 0", "10x - 14y + 22z + 8 = 0", CORRECT),
        ("3R^2", "3r^2", WRONG),
        # sets, inequalities
        ("(3,4]", "3 < x \\le 4", CORRECT),
        ("(3,4]", "3 < x < 4", WRONG),
        ("(1,2)", "1, 2", WRONG),
        ("1, 2", "(1,2)", WRONG),
        ("1, 2", "\\{2, 1\\}", CORRECT),
        ("1, 1, 2", "1, 2, 2", WRONG),
        ("(1,2)", "\\langle 1, 2 \\rangle", CORRECT),
        ("\\emptyset", "\\{\\}", CORRECT),
        ("\\emptyset", "\\{0\\}", WRONG),
        ("58,500", "58, 500", WRONG),
        ("(58, 500)", "(58,500)", CORRECT),
        # matrices
        ("\\begin{pmatrix} 1 & 2 \\end{pmatrix}",
         "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", WRONG),
        ("\\begin{pmatrix} -1 & 0 \\\\ 0 & -1 \\end{pmatrix}",
         "-\\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix}", CORRECT),
        # words
        ("\\text{(C)}", "C", CORRECT),
        ("\\text{Evelyn}", "evelyn", CORRECT),
        ("\\text{Evelyn}", "Eve", WRONG),
        ("5", "\\text{five}", WRONG),
        # other bases
        ("52_8", "42", WRONG),
        ("52_8", "052_{8}", CORRECT),
        # percent
        ("0.5", "50\\%", CORRECT),
        ("0.5", "0.5\\%", WRONG),
        ("9\\%", "9", CORRECT),
        ("9\\%", "0.09", CORRECT),
        ("9\\%", "0.9", WRONG),
        ("50", "50\\%", WRONG),
        # a gold answer that does not parse
        ("\\frac{1}{", "\\frac{1}{", UNVERIFIABLE),  # its box is cut off, as written
        ("1 \\oplus 2 \\clubsuit", "1 \\oplus 2 \\clubsuit", CORRECT),
        ("(1,2", "3", UNVERIFIABLE),
        # characters
        ("4", "4\u200b", UNVERIFIABLE),
        ("42", "4\u20602", UNVERIFIABLE),
        ("42", "\u0664\u0662", UNVERIFIABLE),
        ("42", "\uff14\uff12", UNVERIFIABLE),
        ("x^2", "x\u00b2", UNVERIFIABLE),
        ("-4", "\u22124", CORRECT),
        ("2\\pi", "2\u03c0", CORRECT),
        ("42", "42\u00a0", CORRECT),
    ],
)  # fmt: skip
def test_decisions(gold: str, answer: str, outcome: Outcome) -> None:
    assert boxed(gold, answer) is outcome, judge(gold, f"\\boxed{{{answer}}}").reason


@pytest.mark.parametrize(
    ("question", "gold", "answer", "outcome"),
    [
        ("What percent of 4 is 2?", "50", "50\\%", CORRECT),
        ("What percent of 4 is 2?", "50", "0.5", WRONG),
        ("A day has 24 hours. How many minutes?", "72", "72 minutes", CORRECT),
        ("A day has 24 hours. How many minutes?", "72", "72 hours", WRONG),
        ("It took 2 minutes. How long did it take?", "72", "72 seconds", CORRECT),
        ("How many cents is that?", "50", "\\$50", WRONG),
        ("How many cents is that?", "50", "50 cents", CORRECT),
        ("How much does she earn?", "18", "\\$18.00", CORRECT),
        ("How many clips?", "72", "72 clips", CORRECT),
        ("How many?", "72", "72 clips", UNVERIFIABLE),
        ("How many square meters?", "5", "5\\text{ m}^3", WRONG),
        ("How many square meters?", "5", "5 m^3", WRONG),
        ("How many square meters?", "5", "5\\text{ m}^2", CORRECT),
        ("Round to hundredths.", "5", "5 hundredths", WRONG),
        ("How many?", "5", "5 million", WRONG),
        ("", "10\\text{ cm}", "10", CORRECT),
        ("", "10\\text{ cm}", "10 \\text{ centimeters}", CORRECT),
        ("", "10\\text{ cm}", "10\\text{ m}", WRONG),
        ("", "10\\text{ cm}^2", "10\\text{ cm}", WRONG),
        ("", "10\\text{ cm}^2", "10\\text{ sq. cm}", CORRECT),
        ("", "60\\text{ mph}", "60 \\text{ miles per hour}", CORRECT),
        ("", "90^\\circ", "\\frac{\\pi}{2}", WRONG),
    ],
)
def test_units(question: str, gold: str, answer: str, outcome: Outcome) -> None:
    assert boxed(gold, answer, question) is outcome


VALUE_WORDS = (
    "tenths", "hundredths", "thousandths", "fifths", "tens", "score", "gross", "lakh", "crore",
    "mil", "factorial", "fewer", "below zero", "negative", "doubled", "twice", "wrong",
)  # fmt: skip
NEAR_MISSES = {
    "the case of letters": [
        ("R^2-r^2", "r^2-R^2"),
        ("R-r", "0"),
        ("\\frac{r}{R}", "1"),
        ("2rR", "2r^2"),
        ("\\binom{N}{n}", "\\binom{n}{N}"),
        ("ab", "AB"),
        ("x_{ab}", "x_{AB}"),
        ("\\pi", "\\Pi"),
        ("\\Delta", "\\delta"),
        ("\\Phi + 1", "1 + \\phi"),
        ("\\Omega", "\\omega"),
    ],
    "upright letters": [
        ("5", "3+2\\mathrm{i}"),
        ("3+2\\mathrm{i}", "3+2"),
        ("2\\sqrt3", "2\\sqrt3\\mathrm{i}"),
        ("3x+4", "3x+4\\mathrm{y}"),
        ("3\\mathbf{i}+2\\mathbf{j}", "3\\mathbf{i}+2"),
        ("5", "5\\mathrm{e}^2"),
        ("(1,2)", "(1\\mathrm{i},2\\mathrm{i})"),
    ],
    "words that change the value": [
        *(("5", f"5 {word}") for word in VALUE_WORDS),
        ("5", "5\\text{M}"),
        ("5", "5\\text{ tenths}"),
        ("100", "100\\text{ choose two}"),
        ("5", "5\\text{ per cent}"),
        ("5\\text{ below zero}", "5"),
        ("8\\%", "5+3\\%"),
        ("5", "5 \\mod 7"),
        ("0", "0x10"),
    ],
    "degrees inside": [
        ("\\sin(1)", "\\sin(1^\\circ)"),
        ("\\cos(60)", "\\cos(60^\\circ)"),
        ("60", "\\cos 60^\\circ"),
        ("60^\\circ", "30 + 30^\\circ"),
    ],
    "primes": [
        ("f'(2)", "f(2)"),
        ("f''(x)", "f'(x)"),
        ("x'", "x"),
        ("3", "\\sqrt{9}'"),
        ("f'(1)f(2)", "f(1)f'(2)"),
    ],
    "relations": [
        ("x<1 \\text{ or } x>2", "x<1 \\text{ and } x>2"),
        ("x<1 \\text{ or } x>2", "x<1, x>2"),
        ("x>1 \\text{ and } x>0 \\text{ or } x>5", "x>5 \\text{ and } x>0 \\text{ or } x>1"),
        ("x=5", "x \\approx 5"),
        ("x \\approx 5", "x=5"),
        ("x=5", "x<5"),
        ("x \\ne 5", "x=5"),
        ("x<5", "x \\le 5"),
    ],
    "sets in sets": [
        ("\\{\\{1,2\\},\\{3\\}\\}", "\\{\\{1\\},\\{2,3\\}\\}"),
        ("\\{\\{1\\},\\{2,3\\}\\}", "\\{1,\\{2,3\\}\\}"),
        ("\\{\\{1\\}\\}", "1"),
        ("1", "\\{\\{1\\}\\}"),
        ("\\{1,2\\}, 3", "1, 2, 3"),
    ],
    "names": [("x=1, y=2", "2, 1"), ("x_1=1, x_2=2", "2, 1"), ("x=1, y=2", "y=1, x=2")],
    "small differences": [
        ("e^{-200}", "e^{-201}"),
        ("\\frac{\\sqrt2}{10^{60}}", "\\frac{\\sqrt3}{10^{60}}"),
    ],
}
RIGHT = {
    "the case of letters": [
        ("R^2-r^2", "(R-r)(R+r)"),
        ("2rR", "2Rr"),
        ("AB+C", "C+BA"),
        ("\\Delta + 1", "1 + \\Delta"),
    ],
    "upright letters": [
        ("3+4\\mathrm{i}", "3+4i"),
        ("3\\mathbf{i}+2\\mathbf{j}", "2\\mathbf{j}+3\\mathbf{i}"),
        ("5\\mathrm{m}", "5"),
        ("5\\sqrt{2}\\text{ m}", "5\\sqrt{2}"),
        ("\\text{A},\\text{B}", "\\text{B},\\text{A}"),
    ],
    "units": [
        ("0.05", "5 per cent"),
        ("5", "5 mL"),
        ("5", "5\\text{ dollars per hour}"),
        ("5", "5^\\circ C"),
    ],
    "degrees inside": [
        ("\\frac12", "\\cos(60^\\circ)"),
        ("\\frac12", "\\cos 60^\\circ"),
        ("60^\\circ", "90^\\circ - 30^\\circ"),
        ("60^\\circ", "(90 - 30)^\\circ"),
    ],
    "primes": [("f'(x)", "f'(x)"), ("f'(x) = 2x", "f'(x) = x + x")],
    "relations": [
        ("x<1 \\text{ or } x>2", "x>2 \\text{ or } x<1"),
        ("x<1, x>2", "x<1, x>2"),
        ("x \\approx 5", "x\\approx 5"),
        ("x<5", "5>x"),
        ("x=1 \\text{ or } x=2", "x=2, x=1"),
    ],
    "sets in sets": [
        ("\\{\\{1,2\\},\\{3\\}\\}", "\\{\\{3\\},\\{2,1\\}\\}"),
        ("\\{1\\}", "1"),
        ("x \\in \\{5\\}", "5"),
        ("\\{\\pm 1, 3\\}", "3, 1, -1"),
        ("(1,2) \\cup \\{3\\}", "\\{3\\} \\cup (1,2)"),
    ],
    "names": [
        ("x=1, y=2", "1, 2"),
        ("x=1, y=2", "y=2, x=1"),
        ("x=1, x=2", "2, 1"),
    ],
    "small differences": [
        ("\\sqrt{6}-1", "\\sqrt2\\sqrt3-1"),
        ("\\sqrt{2+\\sqrt3}", "\\frac{\\sqrt6+\\sqrt2}{2}"),
        ("\\cos\\frac{\\pi}{7}", "\\sin\\frac{5\\pi}{14}"),
        ("2+3i", "3i+2"),
    ],
}


@pytest.mark.parametrize(
    ("gold", "answer"), [pair for pairs in NEAR_MISSES.values() for pair in pairs]
)
def test_near_misses(gold: str, answer: str) -> None:
    assert boxed(gold, answer) is not CORRECT


@pytest.mark.parametrize(("gold", "answer"), [pair for pairs in RIGHT.values() for pair in pairs])
def test_right_answers_beside_the_near_misses(gold: str, answer: str) -> None:
    assert boxed(gold, answer) is CORRECT, judge(gold, f"\\boxed{{{answer}}}").reason


def test_parts_by_hand() -> None:
    assert split_unit("5 \\text{ cm}^2") == ("5", "centimeter^2")
    assert split_unit("-\\$5.20") == ("-5.20", "dollar")
    assert split_unit("5x") == ("5x", "")
    assert split_unit("5 dozen") == ("5 dozen", "")
    assert canonical("Feet") == "foot" and canonical("sq. ft.") == "foot^2"
    assert str(rational("-1\\frac{1}{2}")) == "-3/2"
    assert rational("\\frac{1}{0}") is None and rational("1/0") is None and rational("x") is None
    assert exact_decimals("2.50x") == "\\frac{250}{100}x"
    assert clean("$\\left(\\dfrac12, 3\\right).$") == "(\\frac{1}{2}, 3)"
    assert read_answer("1 \\pm 2").kind is Kind.LIST
    assert [item.text for item in read_answer("1 \\pm 2").items] == ["1 + 2", "1 - 2"]
    assert read_answer("(0,1) \\cup [2,3)").kind is Kind.UNION
    assert read_answer("(1+2)(3+4)").kind is Kind.SCALAR


HOSTILE = {
    "huge power": "9^{9^{9^{9}}}",
    "factorials": "((((9!)!)!)!)!",
    "deep braces": "{" * 900 + "1" + "}" * 900,
    "deep roots": "\\sqrt{" * 200 + "25" + "}" * 200,
    "deep brackets": "(" * 300 + "1" + ")" * 300,
    "open brackets": "(" * 1000,
    "many items": ",".join("1" * 900),
    "many digits": "1" * 1990,
    "a long exponent": "1e999999999",
    "python": "__import__('os').system('touch HACKED')",
    "python in a call": "\\text{open}('HACKED','w')",
    "lambda": "(lambda: open('HACKED', 'w'))()",
    "tex input": "\\input{/etc/passwd}",
    "tex write": "\\immediate\\write18{touch HACKED}",
    "a big sum": "\\sum_{n=1}^{10^{12}} n^{n}",
    "a big integral": "\\int_0^1 x^{x^{x^{x}}} dx",
    "a big matrix": "\\begin{pmatrix}" + "1 & " * 400 + "1\\end{pmatrix}",
    "control characters": "4\x00\x1b2",
    "a surrogate": "4\ud800",
    "right to left": "\u202e24\u202c",
    "backslashes": "\\" * 999,
    "dollars": "$" * 999,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_end_at_the_deadline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verifier = MathVerifier(seconds=1.0, workers=1)
    verifier.verify(Problem(id="p", prompt="", answer="\\sqrt{2}"), "\\boxed{\\sqrt{3}}")  # start
    for gold, answer in (("25", HOSTILE[name]), (HOSTILE[name], "25")):
        problem = Problem(id="p", prompt="", answer=gold)
        started = time.monotonic()
        verdict = verifier.verify(problem, f"\\boxed{{{answer}}}")
        assert time.monotonic() - started < 5.0
        assert not verdict.correct
        assert verdict.reason
    assert list(tmp_path.iterdir()) == []


def test_megabytes_of_text() -> None:
    for filler in ("\\boxed{", "#### 1\nso\n", "The answer is ", "{" * 7, "\\boxed{1}", " or "):
        started = time.monotonic()
        assert judge("42", filler * 10**6 + "\n#### 42").correct
        assert not judge("42", filler * 10**6).correct
        assert time.monotonic() - started < 10


def test_a_time_out_is_counted_and_the_next_answer_is_judged() -> None:
    verifier = MathVerifier(seconds=0.5, workers=1)
    problem = Problem(id="p", prompt="", answer="\\sqrt{8}")
    before = TALLY.snapshot().get("math/timed_out", 0)
    for _ in range(2):
        verdict = verifier.verify(problem, "\\boxed{9^{9^{9^{9}}}}")
        assert verdict.outcome is UNVERIFIABLE
        assert "in 0.5 s" in verdict.reason
    assert TALLY.snapshot()["math/timed_out"] == before + 2
    assert verifier.verify(problem, "\\boxed{2\\sqrt{2}}").correct


def test_any_thread_may_call() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for n in range(number, number + 5):
            gold = f"{n}\\sqrt{{2}}"
            if not judge(gold, f"\\boxed{{\\sqrt{{{2 * n * n}}}}}").correct:
                wrong.append(n)
            if judge(gold, f"\\boxed{{\\sqrt{{{2 * n * n + 1}}}}}").correct:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(10 * i + 1,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_file_in_the_users_folder_is_no_module_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("math_verify", "sympy", "rewards", "json", "resource"):
        (tmp_path / f"{name}.py").write_text("open('IMPORTED', 'w').close()\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    verifier = MathVerifier(seconds=30.5, workers=1)  # a pool of its own, started here
    problem = Problem(id="p", prompt="", answer="\\sqrt{8}")
    assert verifier.verify(problem, "\\boxed{2\\sqrt{2}}").correct
    assert not (tmp_path / "IMPORTED").exists()


def test_a_worker_that_dies_is_replaced() -> None:
    words = [sys.executable, "-c", "import os; print('{}', flush=True); input(); os._exit(1)"]
    pool = WorkerPool(words, dict(os.environ), 1)
    for _ in range(2):
        with pytest.raises(WorkerDied):
            pool.ask({}, 10)
    with pytest.raises(RuntimeError, match="did not start"):
        WorkerPool([sys.executable, "-c", ""], dict(os.environ), 1).ask({}, 10)


def test_a_worker_that_died_idle_costs_no_answer(tmp_path: Path) -> None:
    mark = tmp_path / "first"
    code = (  # the first process dies after its first answer, the next ones do not
        "import os, sys; print('{}', flush=True); first = not os.path.exists(sys.argv[1])\n"
        "open(sys.argv[1], 'w').close()\n"
        "for line in sys.stdin:\n"
        "    print('{\"first\": %s}' % str(first).lower(), flush=True)\n"
        "    if first: break\n"
    )
    pool = WorkerPool([sys.executable, "-c", code, str(mark)], dict(os.environ), 1)
    assert [pool.ask({}, 10) for _ in range(3)] == [{"first": True}, *[{"first": False}] * 2]


def test_a_verdict_of_a_dead_worker_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = MathVerifier(seconds=20, workers=1)
    problem = Problem(id="p", prompt="", answer="\\sqrt{8}")

    def die(*_: object) -> dict[str, object]:
        raise WorkerDied("the worker ended")

    with monkeypatch.context() as patch:
        patch.setattr(WorkerPool, "ask", die)
        verdict = verifier.verify(problem, "\\boxed{2\\sqrt{2}}")
        assert verdict.outcome is UNVERIFIABLE and "died" in verdict.reason
    assert verifier.verify(problem, "\\boxed{2\\sqrt{2}}").correct


@pytest.mark.parametrize("gold", ["1" * 5000, "0." + "3" * 5000, "2" * 5000 + "\\%"])
def test_a_gold_answer_too_long_to_be_read(gold: str) -> None:
    verdict = judge(gold, "\\boxed{1}")
    assert verdict.outcome is UNVERIFIABLE and "2000 characters" in verdict.reason


def test_bad_settings_and_problems() -> None:
    with pytest.raises(ValueError, match="seconds is 0"):
        MathVerifier(seconds=0)
    with pytest.raises(ValueError, match="workers is 0"):
        MathVerifier(workers=0)
    with pytest.raises(ValueError, match="problem p: answer is empty"):
        judge(" ", "\\boxed{1}")


PIECES = st.sampled_from(
    ["\\boxed{", "}", "{", "\\frac", "(", ")", "[", "]", ",", "1", "23", ".", "x", "\\pm ", "=",
     "\\text{ cm}", "\\%", "$", "\\\\", "&", "\\begin{pmatrix}", "\\end{pmatrix}", "_", "^", "-",
     "\\cup", "<", "####", "\n", " and ", "\u200b", "\u0663", "\\sqrt", "or", "answer is ", "%"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join), st.lists(PIECES, max_size=8).map("".join))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_a_verdict(solution: str, gold: str) -> None:
    verdict = judge(gold + "1", solution)
    assert verdict.correct == (verdict.reason == "")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_unicode_is_read_or_refused(text: str) -> None:
    try:
        read_answer(text)
    except Unreadable as error:
        assert str(error)
