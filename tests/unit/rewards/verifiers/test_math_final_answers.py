"""Which text is the final answer, and several of them."""

from __future__ import annotations

import time

import pytest

from tests.unit.rewards.verifiers.math_judging import judge

# Between two boxes.
JOINERS = [
    " \\quad \\text{or} \\quad ",
    "$ \\textbf{or} $",
    "~or~",
    "/",
    ", or else ",
    "\n- ",
    ".\n",
    "\\;",
    "~",
    " & ",
    " \\lor ",
    " \\vee ",
    " | ",
    " || ",
    "; ",
    " and ",
    " AND ",
    " OR ",
    "\\quad",
    " \\\\ ",
    " or possibly ",
    " (or maybe ",
    " or, if you prefer, ",
    ". Alternatively, ",
    "\nOption 2: ",
    ", alternatively ",
    " \\mathrm{or} ",
    " \\text{ or } ",
    " \\mbox{ or }",
    " or $x=$ ",
    "\n\n",
    " = ",
    " -> ",
    " \\Rightarrow ",
    " \\to ",
    " vs ",
    " oder ",
]

FORTY_TWO = [
    "**Answer:** 42",
    "**Final Answer**: $42$",
    "The answer is therefore 42.",
    "Final Answer: The final answer is $42$. I hope it is correct.",
    "<answer>42</answer>",
    "<answer>\n42\n</answer>",
    "#### 42\n\nDone.",
    "**Final Answer:**\n42",
    "### Answer\n\n$42$",
    "The final answer is: **42**",
    "*Answer*: 42",
    "__Answer__: 42",
    "So the answer is thus $42$.",
    "Thus, the answer is \\(42\\).",
    "The answer to the problem is 42.",
    "Answer: $\\boxed{42}$",
    "<answer>$42$</answer>",
    "<answer>\\boxed{42}</answer>",
    "the answer is: 42",
    "<answer>#### 42</answer>",
    "\\[\\boxed{42}\\]\nI hope it is correct.",
    "The answer should be 42.",
    "#### **42**",
    "####42",
    "#### $42$",
    "Therefore the answer equals 42.",
    "ANSWER: 42",
    "**Answer: 42**",
    "- Answer: 42",
    "$\\boxed{42}$ (see $\\boxed{\\text{above}}$)",
]

NOT_FORTY_TWO = [
    "The answer is not 42",
    "The answer is 42 or 43",
    "Answer: 42? No, 43",
    "#### 42\nNo wait, it is 43",
    "The answer is 41.\n\nI hope it is 42.",
    "<answer>42",
    "<answer>41</answer>42",
]


@pytest.mark.parametrize("joiner", JOINERS)
def test_several_boxes_are_one_list(joiner: str) -> None:
    for first, second in ((3, 5), (5, 3)):
        solution = f"$\\boxed{{{first}}}{joiner}\\boxed{{{second}}}$"
        assert not judge("5", solution).correct
        assert judge("3, 5", solution).correct
    assert judge("5", f"\\boxed{{5}}{joiner}\\boxed{{5.0}}").correct
    pairs = f"\\boxed{{(6, 2)}}{joiner}\\boxed{{(2, 2)}}"
    assert judge("(2,2),(6,2)", pairs).correct
    assert not judge("(2,2)", pairs).correct


@pytest.mark.parametrize(
    "between", [" then ", " so ", ", no: ", ". Now we check it, and it is not 5. So ", " gives "]
)
def test_a_later_box_in_the_place_of_an_earlier_one(between: str) -> None:
    solution = f"\\boxed{{3}}{between}\\boxed{{5}}"
    assert judge("5", solution).correct
    assert not judge("3", solution).correct
    assert not judge("3, 5", solution).correct


@pytest.mark.parametrize(
    "solution",
    [
        "#### 3\n#### 5",
        "#### 3\nor\n#### 5",
        "#### 3 or 5",
        "<answer>3</answer> <answer>5</answer>",
        "<answer>3</answer> or <answer>5</answer>",
        "<answer>3 or 5</answer>",
        "The answer is 3 or 5",
        "- \\boxed{3}\n- \\boxed{5}",
        "Case 1: \\boxed{3}\nCase 2: \\boxed{5}",
    ],
)
def test_alternatives_are_a_list_whatever_marks_them(solution: str) -> None:
    assert not judge("5", solution).correct
    assert not judge("3", solution).correct
    assert judge("3, 5", solution).correct


@pytest.mark.parametrize("solution", FORTY_TWO)
def test_forty_two(solution: str) -> None:
    assert judge("42", f"Some steps.\n{solution}").correct, judge("42", solution).reason


@pytest.mark.parametrize("solution", NOT_FORTY_TWO)
def test_not_forty_two(solution: str) -> None:
    assert not judge("42", solution).correct


HEDGED = [
    "\\boxed{3} when $x>0$, \\boxed{5} when $x<0$",
    "\\boxed{3}. If $n$ is odd, \\boxed{5}",
    "\\boxed{3}.\nFor odd $n$: \\boxed{5}",
    "In case 1, \\boxed{3}. In case 2, \\boxed{5}",
    "Answer: 3\nAnswer: 5",
    "The answer is 3.\nThe answer is 5.",
    "**Answer:** 3\n**Answer:** 5",
    "\\boxed{3} (if $n$ is even), \\boxed{5} (if $n$ is odd)",
    "\\boxed{3} for even $n$ and \\boxed{5} for odd $n$",
    "\\boxed{3} for even n\n\\boxed{5} for odd n",
    "either \\boxed{3} or else perhaps \\boxed{5}",
    "\\boxed{3}$ and it can also be $\\boxed{5}",
    "\\boxed{3}\n\n\\boxed{5}",
    "\\boxed{x=3} \\quad \\boxed{x=5}",
    "\\begin{align}\\boxed{3}\\\\ \\boxed{5}\\end{align}",
    "\\boxed{3} \\ \\text{or} \\ \\boxed{5}",
    "\\boxed{3}\\text{, or }\\boxed{5}",
    "(A) \\boxed{3} (B) \\boxed{5}",
    "1) \\boxed{3}\n2) \\boxed{5}",
    "\\boxed{3} \\mid \\boxed{5}",
    "\\boxed{3} \\sim \\boxed{5}",
    "\\boxed{3} +\\boxed{5}",
    "\\boxed{3} or \\fbox{5}",
    "\\boxed{3}, \\boxed{4}, \\boxed{5}",
    "\\boxed{5} {\\small or} \\boxed{3}",
    "\\boxed{3} \\emph{or} \\boxed{5}",
    "\\boxed{3} *or* \\boxed{5}",
    "\\boxed{3} **or** \\boxed{5}",
    "\\boxed{3} <br> \\boxed{5}",
    "\\boxed{3} \\newline \\boxed{5}",
    "\\boxed{3}\\qquad\\boxed{5}",
    "\\boxed{3}\\hspace{1cm}\\boxed{5}",
]
FIVE = [
    "Answer: 5\nAnswer: 5",
    "So the answer is 5.\nThe final answer is 5.",
    "\\boxed{3}. If we add 2 to it, we get \\boxed{5}",
    "Answer: 5\n\nI hope it is correct.",
    "We get \\boxed{12} eggs. The total is \\boxed{5}.",
    "There are \\boxed{12} eggs\nThe number left is \\boxed{5}.",
    "\\boxed{12} times 3 is \\boxed{5}",
    "Step 1: \\boxed{3}. Step 2: we add 2 to it: \\boxed{5}",
    "Thus \\boxed{5}, that is, \\boxed{5}",
    "First \\boxed{2}, then \\boxed{5}",
    "The final answer is\n\n$$5$$",
    "The answer is:\n$$\n5\n$$",
    "**Final Answer**\n\\[\n5\n\\]",
    "The answer is\n\\[ 5 \\]",
    "Final Answer: $$5$$",
]


@pytest.mark.parametrize("solution", HEDGED)
def test_hedged_boxes(solution: str) -> None:
    assert not judge("5", solution).correct
    assert not judge("3", solution).correct


@pytest.mark.parametrize("solution", FIVE)
def test_the_last_of_several_statements(solution: str) -> None:
    assert judge("5", solution).correct, judge("5", solution).reason


@pytest.mark.parametrize(
    "solution",
    [
        "$$" + " " * 19_000 + "x",
        "$$ " * 6_000 + "x",
        "\\[" + " " * 19_000 + "x",
        "answer is 5" + " " * 19_000 + "I hop",
        "answer for " * 1_800,
        "answer is therefore " * 1_000,
        "<answer>" * 2_400,
        "<answer>1</answer>\n" * 1_000,
        "#### 1\nor\n" * 2_000,
        "Answer: 3\n" * 2_000,
        "**" * 9_000 + "answer: 5",
        " \n" * 9_000 + "x",
    ],
)
def test_reading_takes_time_linear_in_the_text(solution: str) -> None:
    started = time.monotonic()
    assert not judge("42", solution).correct
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "answer",
    [
        "{\\over" * 280, "\\underline{" * 150 + "1" + "}" * 150, "\\frac{\\text{" * 120,
        "_5C_" * 400, "sqrt(" * 390, "\\{x:" * 390, "(\\begin{array}" * 100, "1 " * 990,
        "a " * 400 + "1 = 5", "( a , " * 200 + "1=5", "|" + "A" * 900 + "= 5",
        "f ( x " * 200 + "= 5",
        "\\text{ (A) } " * 140, "\\mathbb{R} \\setminus " * 80, "1 base 2 " * 150 + "x",
        "all real numbers except " * 80, "5 million " * 190, "1:" * 990, "|" * 1_990,
    ],
)  # fmt: skip
def test_hostile_notations_end_soon(answer: str) -> None:
    started = time.monotonic()
    assert not judge("42", f"\\boxed{{{answer}}}").correct
    assert time.monotonic() - started < 2
