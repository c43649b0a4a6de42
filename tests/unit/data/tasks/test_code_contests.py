"""Rows of programming contests, as they are published."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from data.sources import Row
from data.tasks.code import ROW_FORMATS, CodeConfig, CodeTask, CodeTests
from data.types import Demonstration
from rewards.sandbox.isolation import Limits
from rewards.verifiers.programs import CodeVerifier

VERIFIER = CodeVerifier(isolation="none", limits=Limits(seconds=20))
APPS: dict[str, Any] = {
    "question": "Square the number.",
    "solutions": json.dumps(["n = int(input())\nprint(n * n)"]),
    "input_output": json.dumps({"inputs": ["3\n", ["4"]], "outputs": ["9\n", ["16"]]}),
    "starter_code": "",
}
APPS_FUNCTION = {
    **APPS,
    "solutions": json.dumps(["def pair(a, b):\n    return (a, b)"]),
    "input_output": json.dumps(
        {"fn_name": "pair", "inputs": [[1, 2], ["a", [3]]], "outputs": [[[1, 2]], ["a", [3]]]}
    ),
    "starter_code": "def pair(a, b):\n",
}
CODE_CONTESTS: dict[str, Any] = {
    "description": "Yes or no?",
    "public_tests": {"input": ["1\n"], "output": ["YES\n"]},
    "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["0\n"], "output": ["NO\n"]},
    "solutions": {
        "language": [2, 3],
        "solution": ["int main() {}", "print('Yes' if int(input()) else 'No')"],
    },
}
PRIVATE = [{"input": "4", "output": "16", "testtype": "stdin"}]
LIVE: dict[str, Any] = {
    "question_content": "Square the number.",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "3", "output": "9", "testtype": "stdin"}]),
    "private_test_cases": base64.b64encode(
        zlib.compress(pickle.dumps(json.dumps(PRIVATE)))
    ).decode(),
    "metadata": "{}",
}
LIVE_FUNCTION = {
    **LIVE,
    "public_test_cases": json.dumps(
        [{"input": "[1, 2]\n2", "output": "[2, 4]", "testtype": "functional"}]
    ),
    "private_test_cases": "[]",
    "metadata": json.dumps({"func_name": "scaled"}),
    "starter_code": "class Solution:\n    def scaled(self, nums: List[int], k: int):\n",
}
SCALED = (
    "class Solution:\n    def scaled(self, nums: List[int], k: int) -> List[int]:\n"
    "        return [n * k for n in nums]\n"
)


def made(row_format: str, columns: dict[str, Any], **config: Any) -> Demonstration:
    row = Row(location="", columns=columns)
    return ROW_FORMATS[row_format](row, "r", CodeConfig(row_format=row_format, **config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row_format", "columns", "solution", "wrong"),
    [
        ("apps", APPS, None, "print(9)"),
        ("apps", APPS_FUNCTION, None, "def pair(a, b): return [b, a]"),
        ("code_contests", CODE_CONTESTS, None, "print('YES')"),
        ("livecodebench", LIVE, "print(int(input()) ** 2)", "print(9)"),
        ("livecodebench", LIVE_FUNCTION, SCALED, SCALED.replace("n * k", "n")),
    ],
)
def test_rows_are_judged(
    row_format: str, columns: dict[str, Any], solution: str | None, wrong: str
) -> None:
    row = made(row_format, columns)
    assert bool(row.solution) is (solution is None)
    verdict = VERIFIER.verify(row.problem, solution or row.solution)
    assert verdict.correct, verdict.reason
    assert not VERIFIER.verify(row.problem, wrong).correct


def test_what_the_answers_hold() -> None:
    tests = CodeTests.from_answer(made("apps", APPS).problem.answer)
    assert (tests.cases, tests.compare) == ((("3\n", "9\n"), ("4", "16")), "tokens")
    tests = CodeTests.from_answer(made("code_contests", CODE_CONTESTS).problem.answer)
    assert (tests.cases[1], tests.compare) == (("0\n", "NO\n"), "tokens_any_case")
    tests = CodeTests.from_answer(made("livecodebench", LIVE).problem.answer)
    assert (tests.cases, tests.compare) == ((("3", "9"), ("4", "16")), "lines")
    prompt = made("livecodebench", LIVE_FUNCTION).problem.prompt
    assert "Begin with this:\nclass Solution:" in prompt and "a function scaled" in prompt


@pytest.mark.parametrize(
    ("row_format", "columns", "reason"),
    [
        ("apps", {**APPS, "input_output": "{"}, "input_output is no JSON"),
        ("apps", {**APPS, "input_output": "[]"}, "must be a JSON object"),
        ("apps", {**APPS, "input_output": '{"inputs": ["1"], "outputs": []}'}, "1 inputs and 0"),
        ("apps", {**APPS, "input_output": '{"inputs": 1, "outputs": []}'}, "inputs is '1'"),
        ("apps", {**APPS, "input_output": '{"fn_name": "a b", "inputs": [[]], "outputs": [1]}'},
         "is called 'a b'"),
        ("code_contests", {**CODE_CONTESTS, "public_tests": 3, }, "public_tests is '3'"),
        ("code_contests", {"description": "x"}, "has no tests"),
        ("livecodebench", {**LIVE, "private_test_cases": "AAAA"}, "cannot be unpacked"),
        ("livecodebench", {**LIVE, "private_test_cases": base64.b64encode(zlib.compress(
            pickle.dumps(Path("x")))).decode()}, "holds an object of pathlib"),
        ("livecodebench", {**LIVE_FUNCTION, "metadata": "{}"}, "is called ''"),
    ],
)  # fmt: skip
def test_bad_rows(row_format: str, columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        made(row_format, columns)


def test_demonstrations_need_solutions(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(LIVE) + "\n", encoding="utf-8")
    task = CodeTask(config=CodeConfig(row_format="livecodebench", train_rows=str(source)))
    sizes: dict[str, Any] = {"validation": 0, "test": 0}
    assert len(task.make_splits(1, demonstrations=0, train=1, **sizes).train) == 1
    with pytest.raises(ValueError, match="demonstrations is 1; allowed: 0"):
        task.make_splits(1, demonstrations=1, train=0, **sizes)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"cases": 3}', "cases is '3'"),
        ('{"cases": ["ab"]}', "cases holds"),
        ('{"cases": [["a"]]}', "something else than pairs"),
        ('{"cases": [["a", 3]]}', "must hold lists of text"),
        ('{"cases": [["a", "b"]], "compare": "x"}', "compare is 'x'"),
        ('{"tests": "x", "names": ["f"], "classes": ["g"]}', "classes is"),
    ],
)
def test_answers_that_hold_no_tests(answer: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CodeTests.from_answer(answer)
