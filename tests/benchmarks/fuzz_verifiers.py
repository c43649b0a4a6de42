"""Many generated inputs into every parser and verifier: nothing but verdicts may come out.

python tests/benchmarks/fuzz_verifiers.py --inputs 100000 [--only NAME ...]

Prints, for each target, the inputs tried, the verdicts and time-outs, and the seconds. An exception
that is not the target's own refusal ends the run with the input that caused it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from data.boxes import BadBox, last_boxes
from data.sources import BadRow, Row, read_source
from data.tasks.code import ROW_FORMATS, CodeConfig, CodeTests
from data.tasks.math import MathConfig, gsm8k_row, math_row
from data.types import Problem
from rewards.mathematics.answers import Unreadable, final_answer
from rewards.mathematics.structure import read_answer
from rewards.sandbox.literals import NotPlain
from rewards.sandbox.objects import dumps, loads
from rewards.text_rewards import format_reward, repetition_penalty
from rewards.verifiers.math_answers import MathVerifier
from rewards.verifiers.programs import CodeVerifier
from rewards.verifiers.solutions import readings

PIECES = st.sampled_from(
    ["\\boxed{", "}", "{", "\\frac", "\\frac{1}{2}", "(", ")", "[", "]", ",", "1", "23", "0.5", ".",
     "x", "y", "\\pm ", "=", "\\text{ cm}", "\\text{", "\\%", "$", "\\\\", "&", "\\begin{pmatrix}",
     "\\end{pmatrix}", "_", "^", "-", "+", "!", "\\cup ", "\\infty", "<", "\\le ", "\\in ", "####",
     "\n", " ", " and ", "\u200b", "\u0663", "\u00bd", "\\sqrt", "\\sqrt{", "\\pi", "or", "i",
     "answer is ", "%", "\\{", "\\}", "\\sin", "\\int", "\\sum", "9^", "'", "\\left", "\\right",
     "lambda: 0", "__import__('os')", "\x00", "\ud800", "1,234", "hours", "\\circ"]
)  # fmt: skip
MATHS = st.lists(PIECES, max_size=14).map("".join)
CODE = st.lists(
    st.sampled_from(
        ["```", "```python\n", "\n", "    ", "def f(x):", "return x", "import os", "(", ")", "'",
         '"""', "class A:", "#", "\\", "\x00", "\ud800", "lambda", "print(1)", "@", "1", ":",
         "f", "=", "async ", "\t", "os._exit(0)", "raise", "yield", "exec('1')"]
    ),
    max_size=20,
).map("".join)  # fmt: skip
PLAIN = [
    None, True, 0, -(2**70), 1.5, float("inf"), 1 + 2j, "a", "\ud800", b"\xff", [1, [2]], (1, "x"),
    {1, 2}, frozenset({3}), {"a": [1], (1,): None}, [[[]]], {"k": {"k": 0.0}},
]  # fmt: skip
# What the sandbox's channel carries, with some of it replaced by something else.
LITERALS = st.builds(
    lambda text, start, length, piece: text[:start] + piece + text[start + length :],
    st.sampled_from(PLAIN).map(dumps),
    st.integers(0, 60),
    st.integers(0, 4),
    st.sampled_from(
        ["", '"', "]", "[", ",", "int", "list", "1f", "-", "null", "{}", "\x00", "9e9"]
    ),
)
NAMES = st.sampled_from(
    ["question", "answer", "problem", "solution", "prompt", "code", "test", "test_list", "text",
     "entry_point", "canonical_solution", "test_setup_code", "input_output", "solutions",
     "starter_code", "description", "public_tests", "private_tests", "question_content",
     "public_test_cases", "private_test_cases", "metadata"]
)  # fmt: skip
TESTS = CodeTests(tests="def check(f):\n    assert f(2) == 4", names=("f",), check="check")
MATH = MathVerifier(seconds=1.0)
counts: Counter[str] = Counter()


def maths(gold: str, solution: str) -> None:
    problem = Problem(id="p", prompt="What percent?", answer=gold + "1")
    for text in (solution, f"\\boxed{{{solution}}}"):
        verdict = MATH.verify(problem, text)
        counts[verdict.outcome.value] += 1
        counts["timed out"] += "could not be compared" in verdict.reason
        assert verdict.correct == (verdict.reason == "")


def maths_parsers(text: str) -> None:
    for parse, refusal in ((final_answer, Unreadable), (read_answer, Unreadable)):
        try:
            parse(text)
            counts["read"] += 1
        except refusal:
            counts["refused"] += 1
    try:
        last_boxes(text)
    except BadBox:
        counts["refused"] += 1


def literals(text: str) -> None:
    try:
        value = loads(text)
    except NotPlain:
        counts["refused"] += 1
        return
    counts["read"] += 1
    assert repr(loads(dumps(value))) == repr(value)


def rows(columns: dict[str, Any]) -> None:
    row = Row(location="here", columns=columns)
    for make, config in (
        (gsm8k_row, MathConfig()),
        (math_row, MathConfig(row_format="math")),
        *((make, CodeConfig(row_format=name)) for name, make in ROW_FORMATS.items()),  # type: ignore[arg-type]
    ):
        try:
            make(row, "x", config)  # type: ignore[operator]
            counts["read"] += 1
        except ValueError:
            counts["refused"] += 1


def lines(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(content)
        file.flush()
        for row in read_source(file.name):
            counts["read" if isinstance(row, Row) else "refused"] += 1
            assert isinstance(row, Row | BadRow)


def programs_and_text(text: str) -> None:
    json.dumps(readings(text, TESTS.prefix, TESTS.names)).encode()
    assert format_reward(text) in (0.0, 1.0)
    assert -1.0 <= repetition_penalty(text) <= 0.0
    try:
        CodeTests.from_answer(text)
    except ValueError:
        counts["refused"] += 1


def programs_run(text: str) -> None:
    verdict = CodeVerifier().verify(Problem(id="p", prompt="", answer=TESTS.to_answer()), text)
    counts[verdict.outcome.value] += 1
    assert not verdict.correct


COLUMN = (
    st.none()
    | st.text(max_size=20)
    | st.integers()
    | st.lists(st.text(max_size=5), max_size=3)
    | st.dictionaries(
        st.sampled_from(["input", "output", "language", "solution"]),
        st.lists(st.text(max_size=3), max_size=2) | st.integers(),
        max_size=3,
    )
    | st.sampled_from(
        [
            '{"inputs": ["1"], "outputs": ["1"]}',
            '{"fn_name": "f"}',
            "[1]",
            "{}",
            '[{"input": "1", "output": "2", "testtype": "functional"}]',
        ]
    )
)
# A target, what it is given, and the share of --inputs that it gets: a program costs 0.1 s.
TARGETS: dict[str, tuple[Callable[..., None], tuple[Any, ...], float]] = {
    "maths_parsers": (maths_parsers, (MATHS | st.text(),), 1.0),
    "literals": (literals, (LITERALS | st.text(),), 1.0),
    "rows": (rows, (st.dictionaries(NAMES, COLUMN),), 1.0),
    "lines": (lines, (st.binary(max_size=40),), 1.0),
    "programs_and_text": (programs_and_text, (CODE | st.text(),), 1.0),
    "maths": (maths, (st.lists(PIECES, max_size=4).map("".join), MATHS), 0.5),  # 2 each
    "programs_run": (programs_run, (CODE,), 0.01),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    options = parser.parse_args()
    for name in options.only:
        fuzz(name, options.inputs)


def fuzz(name: str, inputs: int) -> None:
    target, strategies, share = TARGETS[name]
    counts.clear()
    tried = 0

    def counted(values: tuple[Any, ...]) -> None:
        nonlocal tried
        tried += 1
        target(*values)

    run = settings(
        max_examples=max(1, int(inputs * share)),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given(st.tuples(*strategies))(counted))
    started = time.monotonic()
    run()
    seconds = time.monotonic() - started
    print(f"{name}: {tried} inputs, {dict(counts)}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
