"""Rows with long thoughts in every published form, and bad rows named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.formats.long_thoughts import long_thought_row
from data.sources import Row, take_in
from data.tasks.math import MathConfig, MathTask
from data.thoughts import with_thought

ASSISTANT = {"role": "assistant", "content": "It is \\boxed{4}.", "reasoning_content": "2 + 2 = 4"}
USER = {"role": "user", "content": "2 + 2?"}
GOOD: list[dict[str, Any]] = [
    {"problem": "2 + 2?", "response": "<think>\n2 + 2 = 4\n</think>\nIt is \\boxed{4}."},
    {"question": "2 + 2?", "solution": "2 + 2 = 4</think>It is \\boxed{4}.", "answer": 4},
    {"prompt": "2 + 2?", "reasoning_content": "2 + 2 = 4", "content": "It is \\boxed{4}."},
    {"messages": [{"role": "system", "content": "Think."}, USER, ASSISTANT]},
    {"prompt": [USER], "completion": [ASSISTANT]},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": with_thought("2 + 2 = 4", "It is \\boxed{4}.")},
        ]
    },
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"problem": "2 + 2?", "response": "It is 4."}, "there is no thought"),
    ({"problem": "2 + 2?", "response": "<think>2 + 2"}, "the thought has no end"),
    ({"problem": "2 + 2?", "response": "<think></think>4"}, "the thought is empty"),
    ({"problem": "2 + 2?", "response": "<think>a</think>\n"}, "the answer part is empty"),
    ({"response": "<think>a</think>4"}, "question or problem or prompt is absent"),
    ({"problem": "2 + 2?", "reasoning": "a", "content": "b</think>c"}, "there are two thoughts"),
    ({"messages": [ASSISTANT]}, "they must be user and assistant"),
    ({"messages": [USER, ASSISTANT, USER, ASSISTANT]}, "they must be user and assistant"),
    ({"messages": ["hello"]}, "turn 1 of messages is 'hello'"),
    ({"problem": 3, "response": "<think>a</think>4"}, "must be text"),
]


@pytest.mark.parametrize("columns", GOOD)
def test_every_form_gives_the_same_thought(columns: dict[str, Any]) -> None:
    found = long_thought_row(Row(location="f, line 1", columns=columns))
    assert (found.question, found.thought, found.answer, found.gold) == (
        "2 + 2?", "2 + 2 = 4", "It is \\boxed{4}.", "4"
    )  # fmt: skip
    assert found.solution("Question\n") == "<think>\n2 + 2 = 4\n</think>\nIt is \\boxed{4}."
    assert found.solution("<assistant>\n<think>\n") == "2 + 2 = 4\n</think>\nIt is \\boxed{4}."


def test_bad_rows_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "thoughts.jsonl"
    path.write_text("".join(json.dumps(columns) + "\n" for columns, _ in BAD))
    good, bad = take_in(str(path), lambda row, _: long_thought_row(row))
    assert not good
    for number, (row, (_, reason)) in enumerate(zip(bad, BAD, strict=True), start=1):
        assert row.location == f"{path}, line {number}"
        assert reason in row.reason


def test_thoughts_become_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "thoughts.jsonl"
    rows = [*GOOD[:1], {"problem": "3 + 3?", "response": "<think>a</think>six"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = MathConfig(train_rows=str(path), row_format="thoughts", prompt="as_is")
    splits = MathTask(config=config).make_splits(1, demonstrations=1, train=0, validation=0, test=0)
    [demonstration] = splits.demonstrations
    assert (demonstration.problem.prompt, demonstration.problem.answer) == ("2 + 2?", "4")
    assert demonstration.solution == with_thought("2 + 2 = 4", "It is \\boxed{4}.")
    assert [bad.location for bad in splits.bad_rows] == [f"{path}, line 2"]
    assert "no final answer" in splits.bad_rows[0].reason
