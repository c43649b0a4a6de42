"""Problems and demonstrations as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.problems import (
    read_demonstrations,
    read_problems,
    write_demonstrations,
    write_problems,
)
from data.tasks.countdown import make_problem
from data.types import Demonstration, Problem


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_round_trip(tmp_path: Path) -> None:
    # U+2028 and U+0085 end a line for str.splitlines, not in JSON lines.
    problems = [
        make_problem((3, 4, 7, 12), 24),
        Problem(id="own", prompt="What is\u2028 1 + 1?\u0085\n", answer="2", group="g"),
    ]
    write_problems(tmp_path / "p.jsonl", problems)
    assert read_problems(tmp_path / "p.jsonl") == problems
    demonstrations = [Demonstration(problem=p, solution="line\nline") for p in problems]
    write_demonstrations(tmp_path / "d.jsonl", demonstrations)
    assert read_demonstrations(tmp_path / "d.jsonl") == demonstrations
    row = json.loads((tmp_path / "d.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert set(row) == {"id", "prompt", "completion", "answer", "numbers", "group"}


def test_the_users_columns(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "mine.jsonl",
        {"problem": "Say hi", "answer": 5, "solution": "5", "extra": [1]},
        {"prompt": "12 3 4 -> 5\n", "answer": "5", "completion": "x", "id": 7, "numbers": None},
    )
    first, second = read_demonstrations(path)
    assert first.problem == Problem(id="mine-1", prompt="Say hi", answer="5")
    assert first.solution == "5"
    assert second.problem == Problem(
        id="7", prompt="12 3 4 -> 5\n", answer="5", group="3 4 12", numbers=(12, 3, 4)
    )


def test_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "answer": "b"}\r\n\r\n')
    assert read_problems(path) == [Problem(id="p-1", prompt="a", answer="b")]


GOOD = {"prompt": "a", "answer": "b"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "b"}, "prompt .* is absent"),
        ({"prompt": "", "answer": "b"}, "prompt .* is empty"),
        ({"prompt": 3, "answer": "b"}, "prompt is 3; it must be text"),
        ({"prompt": "a"}, "answer is absent; it is required"),
        ({"prompt": "a", "anwser": "b"}, "answer is absent; did you mean 'anwser'. it is req"),
        ({"promt": "a", "answer": "b"}, "prompt .* is absent; did you mean 'promt'. it is req"),
        ({"prompt": "a", "answer": True}, "answer is True"),
        ({"prompt": "a", "answer": 1.5}, "answer is 1.5"),
        ({"prompt": "a", "problem": "b", "answer": "b"}, "the row has both prompt and problem"),
        ({**GOOD, "solution": ""}, "completion .* is empty"),
        ({**GOOD, "numbers": "1 2"}, "numbers is '1 2'"),
        ({**GOOD, "numbers": [1, True]}, "numbers holds True"),
        ({**GOOD, "numbers": [1, -2]}, "numbers holds -2"),
        ({"prompt": "1 2 3 -> 6\n", "answer": "7"}, "answer is '7', but the prompt"),
        ({"prompt": "1 2 3 -> 6\n", "answer": "6", "numbers": [1, 2, 4]}, "numbers is .*but"),
        ([1], "the row is a JSON list"),
    ],
)
def test_bad_row_names_file_line_and_reason(tmp_path: Path, row: object, reason: str) -> None:
    path = write_rows(tmp_path / "bad.jsonl", {**GOOD, "id": "x"}, row)
    with pytest.raises(ValueError, match=rf"bad\.jsonl, line 2: {reason}"):
        read_problems(path)


@pytest.mark.parametrize("line", [b"{not json}", b'{"prompt": "\xff", "answer": "b"}'])
def test_unreadable_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2: "):
        read_problems(path)


def test_no_rows(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no rows"):
        read_problems(tmp_path / "empty.jsonl")


def test_repeated_ids(tmp_path: Path) -> None:
    row = {**GOOD, "id": "x", "completion": "c"}
    path = write_rows(tmp_path / "p.jsonl", row, {**row, "completion": "d"})
    with pytest.raises(ValueError, match="line 2: id 'x' was already used"):
        read_problems(path)
    assert [d.solution for d in read_demonstrations(path)] == ["c", "d"]
    path = write_rows(tmp_path / "p.jsonl", row, {**row, "answer": "c"})
    with pytest.raises(ValueError, match="line 2: id 'x' was already used"):
        read_demonstrations(path)


def test_demonstration_without_solution(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", GOOD)
    with pytest.raises(ValueError, match=r"p\.jsonl, line 1: completion \(or solution\) is absent"):
        read_demonstrations(path)
