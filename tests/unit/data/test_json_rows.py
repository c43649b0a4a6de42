"""Encodings, half characters and integers in rows that others wrote."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.formats.reading import read_labelled
from data.json_rows import integer_as_text, numbered_rows, parse_row
from data.problems import read_demonstrations, read_problems
from data.process_bench import read_process_bench
from data.sources import BadRow, Row, read_source, take_in
from data.tasks.math import MathConfig, gsm8k_row, math_row
from search.trees.files import iterate_trees
from trainer.labels.label_files import read_labels
from trainer.rollouts.files import read_rollouts
from trainer.searching.trajectories import read_trajectories

GOOD = {"prompt": "Q", "answer": "4", "completion": "It is 4."}
LABELLED = {"prompt": "Q", "completions": ["a", "b"], "labels": [True, False]}
ENCODINGS = [
    ("utf-16", "UTF-16 text, by its byte order mark"),
    ("utf-16-le", "zero bytes, as UTF-16 text does"),
    ("utf-16-be", "zero bytes, as UTF-16 text does"),
    ("utf-32", "UTF-32 text, by its byte order mark"),
    ("latin-1", "is not UTF-8 text: byte"),
]


def file_of(path: Path, *rows: object, encoding: str = "utf-8") -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(("encoding", "reason"), ENCODINGS)
def test_another_encoding_is_named_with_file_and_line(
    tmp_path: Path, encoding: str, reason: str
) -> None:
    path = file_of(tmp_path / "r.jsonl", {**GOOD, "prompt": "Caf\u00e9"}, encoding=encoding)
    for read in (read_problems, read_demonstrations):
        with pytest.raises(ValueError, match=f"{path}, line 1: .*{reason}"):
            read(path)
        bad: list[BadRow] = []
        assert read(path, bad) == []
        assert bad[0].location == f"{path}, line 1" and reason in bad[0].reason
    first = next(iter(read_source(str(path))))
    assert isinstance(first, BadRow)
    assert first.location == f"{path}, line 1" and reason in first.reason
    assert "UTF-8" in first.reason


@pytest.mark.parametrize(
    "read",
    [
        lambda path: list(read_labels(path)),
        read_rollouts,
        read_trajectories,
        lambda path: list(iterate_trees(path)),
        lambda path: list(numbered_rows(path)),
    ],
)
def test_our_own_files_too(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = file_of(tmp_path / "r.jsonl", GOOD, encoding="utf-16")
    with pytest.raises(ValueError, match=f"{path}, line 1: is UTF-16 text"):
        read(path)
    path.write_bytes(b'{"prompt": "\\ud83d"}\n')
    with pytest.raises(ValueError, match=f"{path}, line 1: 'prompt' has half a character"):
        read(path)


def test_the_byte_order_mark_of_utf_8_is_read() -> None:
    assert parse_row(codecs.BOM_UTF8 + b'{"a": 1}\n') == {"a": 1}


@pytest.mark.parametrize("column", ["prompt", "answer", "completion"])
def test_half_a_character_is_a_bad_row_and_the_others_go_on(tmp_path: Path, column: str) -> None:
    path = tmp_path / "r.jsonl"
    half = json.dumps({**GOOD, column: "Is it \ud83d?", "id": "half"})
    path.write_text(f"{half}\n{json.dumps({**GOOD, 'id': 'whole'})}\n", encoding="utf-8")
    for read in (read_problems, read_demonstrations):
        bad: list[BadRow] = []
        assert len(read(path, bad)) == 1
        [row] = bad
        assert row.location == f"{path}, line 1"
        assert row.reason == f"'{column}' has half a character (a lone surrogate): the encoding " \
            "is wrong"  # fmt: skip


def test_half_a_character_in_rows_of_every_task(tmp_path: Path) -> None:
    gsm8k = {"question": "How \udc00 much?", "answer": "It is 4.\n#### 4"}
    maths = {"problem": "How much?", "solution": "It is \\boxed{4} \ud800."}
    bench = {"problem": "P", "steps": ["a", "b \ud800"], "label": -1}
    for name, row, make in (("g", gsm8k, gsm8k_row), ("m", maths, math_row)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        made, bad = take_in(str(path), lambda r, n, make=make: make(r, str(n), MathConfig()))
        assert made == [] and "half a character" in bad[0].reason
        assert bad[0].location == f"{path}, line 1"
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(bench) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.jsonl, line 1: 'steps' has half a character"):
        read_process_bench(str(path))
    array = tmp_path / "rows.json"
    array.write_text(json.dumps([gsm8k]), encoding="utf-8")
    [row] = read_source(str(array))
    assert isinstance(row, BadRow) and row.location == f"{array}, row 1"
    path.write_text(json.dumps({**LABELLED, "prompt": "\ud83d"}) + "\n", encoding="utf-8")
    read = read_labelled(str(path), "trl")
    assert read.solutions == () and "half a character" in read.bad_rows[0].reason


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00", "answer": "4"}\n', encoding="utf-8")
    assert read_problems(path)[0].prompt == "\U0001f600"


def test_integers_as_answers(tmp_path: Path) -> None:
    maths = {"problem": "How much?", "solution": "It is\n\\boxed{4}.", "answer": 4}
    made = math_row(Row(location="", columns=maths), "m", MathConfig())
    assert made.problem.answer == "4"
    with pytest.raises(ValueError, match="answer is 'True'; it must be text"):
        math_row(Row(location="", columns={**maths, "answer": True}), "m", MathConfig())
    path = file_of(tmp_path / "p.jsonl", {**GOOD, "answer": -4})
    assert read_problems(path)[0].answer == "-4"
    labels = {**LABELLED, "counts": [1, 1], "answer": 4}
    path = file_of(tmp_path / "l.jsonl", labels)
    assert read_labelled(str(path), "labels").solutions[0].answer == "4"
    assert [integer_as_text(value) for value in (3, True, 2.5, "3", None)] == [
        "3", True, 2.5, "3", None,
    ]  # fmt: skip


SPELLINGS = [
    ("x^{2}", "x^2"), ("x_{1}", "x_1"), ("\\sqrt{3}", "\\sqrt3"), ("a \\leq b", "a\\le b"),
    ("\\tfrac12", "\\frac{1}{2}"), ("e^{\\pi}", "e^\\pi"), ("2 \\cdot x", "2\\times x"),
    ("x \\neq 1", "x\\ne1"), ("x^{2}+y^{2}", "x^2 + y^2"), ("2^{n}", "2^n"),
]  # fmt: skip


@pytest.mark.parametrize(("box", "answer"), SPELLINGS)
def test_a_box_in_another_spelling_than_the_answer(box: str, answer: str) -> None:
    row = {"problem": "P", "solution": f"It is\n\\boxed{{{box}}}.", "answer": answer}
    made = math_row(Row(location="", columns=row), "m", MathConfig())
    assert made.problem.answer == answer


@pytest.mark.parametrize(
    ("box", "answer"),
    [("x^{2}", "x^3"), ("x^{12}", "x^12"), ("x_{12}", "x_1 2"), ("\\sqrt{12}", "\\sqrt12"),
     ("5\\frac{10}{2}", "10"), ("x^{ab}", "x^ab")],
)  # fmt: skip
def test_a_box_with_another_answer(box: str, answer: str) -> None:
    row = {"problem": "P", "solution": f"It is\n\\boxed{{{box}}}.", "answer": answer}
    with pytest.raises(ValueError, match="but the solution's box holds"):
        math_row(Row(location="", columns=row), "m", MathConfig())
