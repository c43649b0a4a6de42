"""How language models write their final answers, and what is nearly the same."""

from __future__ import annotations

import pytest

from data.types import Outcome
from tests.unit.rewards.verifiers.math_judging import boxed, judge

RIGHT_TEXTS = [
    ("42", "<think>maybe \\boxed{41}</think>\n\\boxed{42}"),
    ("42", "<think><answer>41</answer></think><answer>42</answer>"),
    ("42", "<answer>The answer is 42.</answer>"),
    ("42", "The answer is $42$!"),
    ("42", "Answer: 42<|im_end|>"),
    ("42", "#### 42</s>"),
    ("42", "\\boxed{42}<|eot_id|>\n<|endoftext|>"),
    ("42", "The answer is _42_."),
    ("42", "The answer is `42`."),
    ("42", "Answer: ***42***"),
    ("42", "Thus the answer would be 42."),
    ("1, 2", "The answers are 1 and 2."),
    ("B", "The correct answer is (B) 12."),
    ("B", "Answer: B) 12"),
    ("B", "The answer is option B"),
    ("B", "The answer is Option (B)."),
]
WRONG_TEXTS = [
    ("42", "<think>\\boxed{42}</think>"),
    ("42", "<think>\\boxed{42}</think>\\boxed{41}"),
    ("42", "<think>a</think>\\boxed{41} or \\boxed{42}"),
    ("42", "The answers are 42 and 43."),
    ("42", "The answer is 43\nor the answer is 42"),
    ("42", "The answer is 43. Or the answer is 42"),
    ("42", "Answer: 43, or possibly the answer is 42"),
    ("B", "Answer: (B) or (C)"),
    ("B", "Answer: (B) 12 or (C) 13"),
    ("42", "<answer>The answer is 43.</answer>"),
    ("42", "The answer would not be 42."),
    ("A", "The correct answer is (B) 12."),
    ("A", "The answer is option B"),
    ("A", "Answer: B) A"),
    ("x_1", "The answer is x _1_"),
]
RIGHT = [
    ("(-\\infty,2)\\cup(3,\\infty)", "\\left(-\\infty,2\\right)\\bigcup\\left(3,\\infty\\right)"),
    ("2A_{16}", "2a_{16}"),
    ("2a_{16}", "2A_{16}"),
    ("B", "(B) 12 cm"),
    ("12", "(B) 12"),
    ("B", "B. 12"),
    ("(B)", "B: 12"),
    ("D", "D: none of the above"),
    ("A, B, C", "\\text{A, B, and C}"),
    ("\\text{I, III}", "\\text{I and III}"),
    ("31", "31_{10}"),
    ("31_{10}", "31"),
    ("(-\\infty,-1]\\cup[3,\\infty)", "x \\leq -1 \\lor x \\geq 3"),
    ("\\frac{\\frac12}{3}", "\\frac16"),
    ("x=\\boxed{5}", "5"),
    ("a=1,b=2", "(1,2)"),
    ("x=1,y=2,z=3", "(x,y,z)=(1,2,3)"),
    ("\\frac{dy}{dx}=2x", "2x"),
    ("2x", "\\frac{dy}{dx}=2x"),
]
NOT_RIGHT = [
    ("(-\\infty,2)\\cup(3,\\infty)", "(-\\infty,2)\\bigcap(3,\\infty)"),
    ("2A_{16}", "2b_{16}"),
    ("A", "(B) A"),
    ("B", "(B) or (C)"),
    ("B", "(B) C"),
    ("B", "\\text{(B) } 5 \\text{ or (C) } 6"),
    ("A, B", "\\text{A or C}"),
    ("\\frac{\\pi}{6}", "60^\\circ"),
    ("2, 4, 6", "(2, 4, 8)"),
    ("13", "(B) 12"),
    ("x=1,y=2", "(2,1)"),
    ("x=1,y=2", "[1,2]"),
    ("y=1,x=2", "(1,2)"),
    ("\\frac{dy}{dx}=2x", "\\frac{dy}{dx}=3x"),
    ("\\frac{dy}{dx}=2x", "\\frac{dx}{dy}=2x"),
]
# Another notation of the gold answer, that is not read.
NOT_JUDGED = [
    ("\\{x : x^2 = 4\\}", "\\{2,-2\\}"),
    ("(2,3)", "2\\vec{i}+3\\vec{j}"),
    ("(2,3)", "2\\mathbf{i}+3\\mathbf{j}"),
    ("2\\hat{i}+3\\hat{j}", "\\begin{pmatrix}2\\\\3\\end{pmatrix}"),
    ("101_2", "101"),
    ("2, 4, 6", "(2, 4, 6)"),
    ("\\frac{\\pi}{6}", "30^\\circ"),
    ("\\begin{pmatrix}1&2\\end{pmatrix}", "(1,2)"),
    ("15", "\\sum_{k=1}^{5} k"),
    ("101", "101_2"),
    ("\\approx 6.28", "6.28"),
]


@pytest.mark.parametrize(("gold", "solution"), RIGHT_TEXTS)
def test_texts_with_the_right_answer(gold: str, solution: str) -> None:
    assert judge(gold, solution).correct, judge(gold, solution).reason


@pytest.mark.parametrize(("gold", "solution"), WRONG_TEXTS)
def test_texts_without_it(gold: str, solution: str) -> None:
    assert not judge(gold, solution).correct


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right_notations(gold: str, answer: str) -> None:
    assert boxed(gold, answer).correct, boxed(gold, answer).reason


@pytest.mark.parametrize(("gold", "answer"), NOT_RIGHT)
def test_what_is_nearly_right(gold: str, answer: str) -> None:
    assert not boxed(gold, answer).correct


@pytest.mark.parametrize(("gold", "answer"), NOT_JUDGED)
def test_what_is_not_judged(gold: str, answer: str) -> None:
    assert boxed(gold, answer).outcome is Outcome.UNVERIFIABLE, boxed(gold, answer).reason
