"""Tasks from rows: GSM8K's, MATH's, HumanEval's and MBPP's formats, bad rows, prompts, splits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.boxes import BadBox, last_boxes
from data.prompts import render
from data.sources import BadRow, Row, read_source, take_in
from data.tasks.code import CodeConfig, CodeTask, CodeTests, humaneval_row, mbpp_row
from data.tasks.math import MathConfig, MathTask, gsm8k_row, math_row
from data.tokenizers import build_tokenizer
from data.types import Demonstration

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"
needs_data = pytest.mark.usefixtures("published_data")
GSM8K = {
    "question": "Tom has 2 bags of 3 apples. How many apples?",
    "answer": "He has 2*3=<<2*3=6>>6 apples.\nSo 6.\n#### 6",
}
MATH = {"problem": "What is $1+1$?", "solution": "We add. It is $\\boxed{2}$.\n\nDone. $x$."}
MBPP = {
    "task_id": 1, "text": "Double a number.", "code": "def double(x):\r\n    return 2 * x",
    "test_list": ["assert double(2) == 4", "assert double(0) == 0"], "test_setup_code": "",
}  # fmt: skip


def row(columns: dict[str, Any]) -> Row:
    return Row(location="here", columns=columns)


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_gsm8k_by_hand() -> None:
    made = gsm8k_row(row(GSM8K), "g-1", MathConfig())
    assert made.problem.prompt == (
        "Question: Tom has 2 bags of 3 apples. How many apples?\nAnswer:\n"
    )
    assert made.solution == "He has 2*3=6 apples.\nSo 6.\n#### 6"
    assert (made.problem.id, made.problem.answer) == ("g-1", "6")
    assert made.problem.group == "tom has 2 bags of 3 apples. how many apples?"
    kept = MathConfig(calculator_marks="kept", answer_mark="boxed", prompt="boxed")
    made = gsm8k_row(row(GSM8K), "g-1", kept)
    assert made.solution == ("He has 2*3=<<2*3=6>>6 apples.\nSo 6.\nThe answer is \\boxed{6}.")
    assert "\\boxed{}" in made.problem.prompt


def test_math_by_hand() -> None:
    config = MathConfig(row_format="math", answer_mark="boxed")
    made = math_row(row(MATH), "m", config)
    assert made.problem.answer == "2"
    assert made.solution.split("\n") == [
        "We add.", "It is $\\boxed{2}$.", "Done.", "$x$.", "The answer is \\boxed{2}."
    ]  # fmt: skip
    unboxed = {**MATH, "solution": "It is 3.", "answer": "3"}
    assert math_row(row(unboxed), "m", config).problem.answer == "3"


@pytest.mark.parametrize(
    ("boxed", "answer"),
    [
        ("2", "2"), ("2", "2.0"), ("2", "$2$."), ("\\dfrac12", "\\frac{1}{2}"), ("\\frac12", "0.5"),
        ("1\\frac{1}{2}", "3/2"), ("1,000", "1000"), ("10\\text{ cm}", "10"), ("\\text{(C)}", "C"),
        ("x = 5", "5"), ("50\\%", "50"), ("\\left( 3, 4 \\right)", "(3,4)"), ("90^\\circ", "90"),
        ("15\\frac{39}{40}} or $\\boxed{\\frac{639}{40}", "\\frac{639}{40}"),
    ],
)  # fmt: skip
def test_a_math_rows_answer_in_another_spelling(boxed: str, answer: str) -> None:
    columns = {**MATH, "solution": f"It is $\\boxed{{{boxed}}}$", "answer": answer}
    made = math_row(row(columns), "m", MathConfig(row_format="math"))
    assert made.problem.answer == answer


@pytest.mark.parametrize(
    ("boxed", "answer"),
    [
        ("2", "3"), ("2", "-2"), ("\\frac12", "\\frac{1}{3}"), ("12", "2"), ("(1,2)", "(2,1)"),
        ("3} or $\\boxed{5}$", "3"), ("x^2", "x^3"), ("\\text{Ann}", "Bob"), ("\\text{5 cm}", "6"),
    ],
)  # fmt: skip
def test_a_math_row_that_boxes_another_answer_is_bad(
    boxed: str, answer: str, tmp_path: Path
) -> None:
    columns = {**MATH, "solution": f"It is $\\boxed{{{boxed}}}$", "answer": answer}
    config = MathConfig(row_format="math")
    source = lines(tmp_path / "rows.jsonl", MATH, columns)
    made, bad = take_in(source, lambda r, n: math_row(r, str(n), config))
    assert len(made) == 1
    assert str(bad[0]).startswith(f"{source}, line 2: answer is {answer!r}, but the solution's box")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": None}, "question is absent"),
        ({"question": 3}, "question is '3'; it must be text"),
        ({"question": " "}, "question is empty"),
        ({"answer": ["6"]}, "answer is .* it must be text"),
        ({"answer": "He has 6."}, "answer has no final answer"),
        ({"answer": "He has 6.\n####"}, "answer has no final answer"),
        ({"answer": "#### 6\nand more"}, "answer has no final answer"),
        ({"answer": "#### 6"}, "no step before its final answer"),
    ],
)
def test_bad_gsm8k_rows(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        gsm8k_row(row({**GSM8K, **change}), "g", MathConfig())


def test_bad_math_rows() -> None:
    config = MathConfig(row_format="math")
    for change, reason in (
        ({"solution": "It is 2."}, "no final answer"),
        ({"solution": "It is \\boxed{2"}, "cut off"),
        ({"problem": None}, "problem .or question. is absent"),
    ):
        with pytest.raises(ValueError, match=reason):
            math_row(row({**MATH, **change}), "m", config)


def test_bad_rows_are_named_and_the_rest_proceeds(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GSM8K).encode()
    path.write_bytes(
        b"\n".join([good, b"", b"{oops", b'{"question": "\xff"}', b"[1]", b'{"answer": "a"}', good])
    )
    made, bad = take_in(str(path), lambda r, n: gsm8k_row(r, str(n), MathConfig()))
    assert [d.problem.id for d in made] == ["1", "6"]
    assert [b.location.rpartition(", ")[2] for b in bad] == ["line 3", "line 4", "line 5", "line 6"]
    assert bad[0].reason.startswith("is not JSON: ")
    assert bad[1].reason == "is not UTF-8 text: byte 15 is 0xff"
    assert bad[2].reason == "the row is a JSON list; it must be an object"
    assert str(bad[3]) == f"{path}, line 6: question is absent"


def test_sources(tmp_path: Path) -> None:
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(GSM8K).encode()))
    assert [r.columns for r in read_source(str(packed)) if isinstance(r, Row)] == [GSM8K]
    folder = tmp_path / "set"
    folder.mkdir()
    lines(folder / "train.jsonl", GSM8K, GSM8K)
    rows = list(read_source(f"{folder}:train"))  # a data set that `datasets` loads
    assert [r.columns for r in rows if isinstance(r, Row)] == [GSM8K, GSM8K]
    assert rows[1].location == f"{folder}:train, row 2"
    with pytest.raises(ValueError, match=r"source 'nowhere.jsonl' is not a file"):
        read_source("nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no rows"):
        take_in(str(tmp_path / "empty.jsonl"), lambda r, n: r)


def numbered(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{**GSM8K, "question": f"How much is {i}?"} for i in range(start, start + count)]


def test_splits_are_disjoint_and_repeatable(tmp_path: Path) -> None:
    train = lines(tmp_path / "train.jsonl", *numbered(30), *numbered(5), {"question": "x"})
    test = lines(tmp_path / "test.jsonl", *numbered(10, start=25))
    task = MathTask(config=MathConfig(train_rows=train, test_rows=test))
    sizes = {"demonstrations": 8, "train": 10, "validation": 7, "test": 10}
    splits = task.make_splits(3, **sizes)
    assert splits == task.make_splits(3, **sizes)
    assert splits != task.make_splits(4, **sizes)
    groups = [
        {d.problem.group for d in splits.demonstrations},
        *({p.group for p in part} for part in (splits.train, splits.validation, splits.test)),
    ]
    assert [len(group) for group in groups] == [8, 10, 7, 10]
    assert len(set.union(*groups)) == 35  # the five in both files are not trained on
    assert [b.reason for b in splits.bad_rows] == ["answer is absent"]
    with pytest.raises(ValueError, match="ask for 26 problems; the rows hold 25 distinct ones"):
        task.make_splits(3, **{**sizes, "train": 11})
    with pytest.raises(ValueError, match="train is -1"):
        task.make_splits(3, **{**sizes, "train": -1})


@pytest.mark.parametrize("name", ["math", "code"])
def test_files_of_one_name_give_different_ids(tmp_path: Path, name: str) -> None:
    sources: dict[str, Any] = {}
    for i, side in enumerate(("train", "test")):
        (tmp_path / side).mkdir()
        rows = numbered(4, 10 * i) if name == "math" else [
            {**MBPP, "text": f"Double {10 * i + k}."} for k in range(4)
        ]  # fmt: skip
        sources[f"{side}_rows"] = lines(tmp_path / side / "rows.jsonl", *rows)
    if name == "math":
        task = MathTask(config=MathConfig(**sources))
    else:
        task = CodeTask(config=CodeConfig(row_format="mbpp", **sources))
    splits = task.make_splits(1, demonstrations=0, train=4, validation=0, test=4)
    assert {p.id for p in splits.train} == {f"train-rows-jsonl-{i}" for i in range(1, 5)}
    assert {p.id for p in splits.test} == {f"test-rows-jsonl-{i}" for i in range(1, 5)}


@needs_data
def test_all_published_rows_are_good() -> None:
    counts = {"gsm8k_train.jsonl": 7473, "gsm8k_test.jsonl": 1319}
    for name, count in counts.items():
        made, bad = take_in(str(SHARED / name), lambda r, n: gsm8k_row(r, str(n), MathConfig()))
        assert (len(made), bad) == (count, [])
        assert not any("<<" in d.solution for d in made)
    config = MathConfig(row_format="math")
    made, bad = take_in(
        str(SHARED / "math500_test.jsonl"), lambda r, n: math_row(r, str(n), config)
    )
    assert (len(made), bad) == (500, [])


def test_humaneval_by_hand() -> None:
    columns = {
        "prompt": "def one():\n    '''One.'''\n", "canonical_solution": "    return 1\n",
        "test": "def check(f):\n    assert f() == 1\n", "entry_point": "one",
    }  # fmt: skip
    made = humaneval_row(row(columns), "h", CodeConfig())
    assert (made.problem.prompt, made.solution) == (columns["prompt"], "    return 1")
    tests = CodeTests.from_answer(made.problem.answer)
    assert (tests.names, tests.check, tests.prefix) == (("one",), "check", columns["prompt"])
    for change, reason in (({"entry_point": "two"}, "does not define"), ({"test": ""}, "test is")):
        with pytest.raises(ValueError, match=reason):
            humaneval_row(row({**columns, **change}), "h", CodeConfig())


def test_mbpp_by_hand(tmp_path: Path) -> None:
    made = mbpp_row(row(MBPP), "b", CodeConfig(row_format="mbpp"))
    assert made.problem.prompt == '"""\nDouble a number.\nassert double(2) == 4\n"""\n'
    assert made.solution == "def double(x):\n    return 2 * x"
    tests = CodeTests.from_answer(made.problem.answer)
    assert (tests.names, tests.check) == (("double",), None)
    for change, reason in (
        ({"test_list": []}, "must be a list of asserts"),
        ({"test_list": ["assert other(1)"]}, "calls no function that code defines"),
        ({"code": "def f(:"}, "is not valid Python"),
        ({"test_setup_code": 3}, "test_setup_code is 3"),
        ({"test_imports": "import math"}, "test_imports is 'import math'"),
    ):
        with pytest.raises(ValueError, match=reason):
            mbpp_row(row({**MBPP, **change}), "b", CodeConfig(row_format="mbpp"))
    source = lines(tmp_path / "mbpp.jsonl", *({**MBPP, "text": f"Double {i}."} for i in range(9)))
    task = CodeTask(config=CodeConfig(row_format="mbpp", train_rows=source))
    splits = task.make_splits(1, demonstrations=3, train=3, validation=3, test=0)
    assert len(splits.demonstrations) == 3


def test_mbpp_tests_are_hidden_beyond_the_first_and_have_their_imports() -> None:
    sanitized = {**MBPP, "test_imports": ["import math", "import re"], "test_setup_code": "x = 1"}
    hidden = "assert double(0) == 0"
    for shown, is_shown in ((1, False), (2, True)):
        config = CodeConfig(row_format="mbpp", shown_tests=shown)
        problem = mbpp_row(row(sanitized), "b", config).problem
        assert (hidden in problem.prompt) is is_shown
        tests = CodeTests.from_answer(problem.answer)
        assert hidden in tests.tests
        assert tests.setup == "import math\nimport re\nx = 1"
    assert CodeTests.from_answer(mbpp_row(row(MBPP), "b", config).problem.answer).setup == ""
    with pytest.raises(ValueError, match="shown_tests is 0"):
        CodeConfig(shown_tests=0)


def test_wrong_settings_are_named() -> None:
    for fields, reason in (
        ({"row_format": "x"}, "row_format is 'x'"),
        ({"prompt": "x"}, "prompt is 'x'"),
        ({"calculator_marks": "x"}, "calculator_marks is 'x'"),
        ({"answer_mark": "x"}, "answer_mark is 'x'"),
    ):
        with pytest.raises(ValueError, match=reason):
            MathConfig(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="row_format is 'x'"):
        CodeConfig(row_format="x")  # type: ignore[arg-type]


def test_a_chat_models_prompt(tmp_path: Path) -> None:
    tokenizer: Any = build_tokenizer("bpe", 1, vocab_size=300, texts=["some text"])
    with pytest.raises(ValueError, match="no chat template"):
        tokenizer.save_pretrained(tmp_path / "plain")
        render("What?", "question", str(tmp_path / "plain"))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    prompt = render("What?", "question", str(tmp_path / "chat"))
    assert prompt == "<user>Question: What?\nAnswer:\n<assistant>"
    with pytest.raises(ValueError, match="prompt is 'x'"):
        render("What?", "x", None)


def test_boxes() -> None:
    assert last_boxes("no box") == ()
    assert last_boxes("\\boxed{a} or $\\boxed{b}$") == ("a", "b")
    assert last_boxes("\\boxed{\\frac{1}{2}} so \\boxed{\\}\\{}") == ("\\}\\{",)
    assert last_boxes("\\boxed{a} (see \\boxed{\\text{above}})") == ("a",)
    with pytest.raises(BadBox):
        last_boxes("\\boxed{a")


COLUMN = (
    st.none() | st.text(max_size=20) | st.integers() | st.lists(st.text(max_size=5), max_size=3)
)
NAMES = st.sampled_from(
    ["question", "answer", "problem", "solution", "prompt", "code", "test", "test_list", "text",
     "entry_point", "canonical_solution", "test_setup_code"]
)  # fmt: skip


@given(st.dictionaries(NAMES, COLUMN))
@settings(max_examples=200, deadline=None)
def test_any_row_is_taken_or_refused(columns: dict[str, Any]) -> None:
    for make, config in (
        (gsm8k_row, MathConfig()),
        (math_row, MathConfig(row_format="math")),
        (humaneval_row, CodeConfig()),
        (mbpp_row, CodeConfig(row_format="mbpp")),
    ):
        try:
            made = make(row(columns), "x", config)  # type: ignore[operator]
        except ValueError as error:
            assert str(error)
        else:
            assert isinstance(made, Demonstration)


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_line_is_a_row_or_a_bad_one(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    path.write_bytes(content)
    assert all(isinstance(r, Row | BadRow) for r in read_source(str(path)))
