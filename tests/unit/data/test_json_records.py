"""A result is read back as the type that was written, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from data.json_records import read_record, record_from_json


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    share: float
    low: float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    rows: tuple[Row, ...]
    by_name: Mapping[str, Row]
    best: Row | None


ROW = Row(name="a", share=1, low=None)
TABLE = Table(rows=(ROW, Row(name="b", share=0.5, low=0.25)), by_name={"a": ROW}, best=None)


def as_json() -> dict[str, Any]:
    return json.loads(json.dumps(asdict(TABLE)))


def test_what_was_written_is_read_back() -> None:
    assert record_from_json(Table, as_json()) == TABLE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.update(more=1), r"Table holds an unknown key 'more'; known: rows, by"),
        (lambda value: value.pop("best"), "Table lacks the key 'best'"),
        (lambda value: value["rows"][1].pop("low"), r"Table\.rows\[1\] lacks the key 'low'"),
        (
            lambda value: value["by_name"]["a"].update(high=1.0),
            r"Table\.by_name\.a holds an unknown key 'high'; known: name, share, low",
        ),
        (
            lambda value: value["rows"][0].update(share="1"),
            r"Table\.rows\[0\]\.share must be of type float, got '1'",
        ),
        (lambda value: value.update(best=[]), r"Table\.best must be a mapping, got \[\]"),
    ],
)  # fmt: skip
def test_another_content_is_refused_by_its_place(change: Any, said: str, tmp_path: Path) -> None:
    value = as_json()
    change(value)
    with pytest.raises(ValueError, match=said):
        record_from_json(Table, value)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"table\.json: " + said):
        read_record(Table, path)
