"""ProcessBench rows: the good ones as they are, the bad ones with file, line and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.process_bench import read_process_bench

GOOD: dict[str, Any] = {"id": "gsm8k-0", "problem": "1 + 1?", "steps": ["a", "b"], "label": 1}


def test_bad_rows_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k.jsonl"
    wrong = [
        ({"label": 2}, "label is '2'; it must be -1 (no error) or the index of a step, 0 to 1"),
        ({"label": None}, "label is 'None'"),
        ({"label": True}, "label is 'True'"),
        ({"label": float("nan")}, "label is 'nan'"),
        ({"label": -2}, "label is '-2'"),
        ({"steps": []}, "steps is '[]'"),
        ({"steps": "ab"}, "steps is 'ab'; it must be a list"),
        ({"steps": ["a", " "]}, "steps[1] is ' '; it must be text, not blank"),
        ({"steps": ["a", 3]}, "steps[1] is '3'"),
        ({"problem": None}, "problem is absent"),
    ]
    rows = [GOOD, *(GOOD | change for change, _ in wrong), GOOD | {"label": -1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    found, bad = read_process_bench(str(path))
    assert [(row.id, row.label) for row in found] == [("gsm8k-1", 1), ("gsm8k-12", -1)]
    assert (found[0].problem, found[0].steps) == ("1 + 1?", ("a", "b"))
    assert [b.location for b in bad] == [f"{path}, line {n}" for n in [*range(2, 12), 13]]
    for row, (_, said) in zip(bad, wrong, strict=False):
        assert row.reason.startswith(said)


def test_a_source_without_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(GOOD | {"label": 7}) + "\n")
    message = r"has no usable row; the first bad row: .*line 1: label is '7'"
    with pytest.raises(ValueError, match=message):
        read_process_bench(str(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(problem=JSON, steps=JSON | st.lists(st.text(max_size=3)), label=JSON | st.integers(-2, 4))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
def test_any_row_is_taken_whole_or_refused(
    tmp_path: Path, problem: Any, steps: Any, label: Any
) -> None:
    path = tmp_path / "any.jsonl"
    row = {"problem": problem, "steps": steps, "label": label}
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(row) + "\n")
    found, bad = read_process_bench(str(path))
    assert len(found) + len(bad) == 2
    for taken in found[1:]:
        assert (taken.problem, list(taken.steps), taken.label) == (problem, steps, label)
        assert -1 <= taken.label < len(taken.steps)
