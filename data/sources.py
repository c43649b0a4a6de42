"""Rows of data sets, from a local file or from a split of a data set that `datasets` can load.

A source is one of these:
- a path to a `.jsonl` (or `.jsonl.gz`) file;
- a path to a `.json` file with one array of rows;
- `name:split` or `name:config:split`, where `name` is an id of the hub or a folder that `datasets`
  can load.

A row that cannot be used becomes a `BadRow`, which gives its place and the reason. Reading goes on
with the next row.
"""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from data.json_rows import checked_row, decoded, integer_as_text, parse_row
from data.progress import BatchProgress
from data.settings import did_you_mean

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. `location` is the file and the line, or the data set and the row (from 1)."""

    location: str
    columns: dict[str, Any]

    def text(self, *names: str) -> str:
        """The text in the first column of `names` that the row has.

        Raises ValueError when there is no such column, and when its value is not text or is blank.
        The message is the reason without the place.
        """
        name = next((name for name in names if self.columns.get(name) is not None), None)
        if name is None:
            near = did_you_mean(names[0], self.columns).strip()
            said = f"{' (or '.join(names)}{')' * (len(names) - 1)} is absent"
            raise ValueError(f"{said}; {near}" if near else said)
        return _text(self.columns[name], name)

    def answer(self) -> str | None:
        """The text, or the integer as text, under "answer"; None where there is none."""
        value = self.columns.get("answer")
        return None if value is None else _text(integer_as_text(value), "answer")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {str(value)[:80]!r}; it must be text")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    return value


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be used: its place and the reason."""

    location: str
    reason: str

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


def read_source(source: str) -> Iterator[Row | BadRow]:
    """The rows of a source, one at a time.

    Raises ValueError for a source that is neither a file nor `name:split`. While reading, raises
    ValueError at the place where a compressed file is cut off.
    """
    path = Path(source)
    if path.is_file():
        return _read_array(path) if path.suffix == ".json" else _read_file(path)
    name, separator, split = source.rpartition(":")
    if not separator or not name or not split:
        raise ValueError(
            f"source {source!r} is not a file; write a data set as name:split or name:config:split"
        )
    name, _, config = name.partition(":")
    return _read_dataset(name, config or None, split)


def take_in(source: str, make: Callable[[Row, int], Made]) -> tuple[list[Made], list[BadRow]]:
    """Call `make(row, number)` for each row of a source. Row numbers begin at 1 and do not count
    blank lines.

    Returns the results, and the rows for which `make` raised ValueError. Raises ValueError for a
    source without any row.
    """
    made: list[Made] = []
    bad: list[BadRow] = []
    progress = BatchProgress(f"rows of {source}", 0)
    for number, row in enumerate(read_source(source), start=1):
        progress.add(1)
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            made.append(make(row, number))
        except ValueError as error:
            bad.append(BadRow(location=row.location, reason=str(error)))
    if not made and not bad:
        raise ValueError(f"source {source!r} has no rows; it must have at least one")
    return made, bad


def _read_file(path: Path) -> Iterator[Row | BadRow]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number}"
        try:
            yield Row(location=location, columns=parse_row(line))
        except ValueError as error:
            yield BadRow(location=location, reason=str(error))


def _lines(path: Path) -> Iterator[bytes]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        try:
            yield from cast("Sequence[bytes]", file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            # An unknown number of rows is lost here. So this is an error, not one bad row.
            raise ValueError(f"{path} is cut off or is not a gzip file ({error})") from error


def _read_array(path: Path) -> Iterator[Row | BadRow]:
    """Read a file with one JSON array of rows, as sanitized MBPP is published. A file that is not
    an array is read line by line."""
    try:
        parsed: Any = json.loads(decoded(path.read_bytes()))
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, list):
        yield from _read_file(path)
        return
    for number, columns in enumerate(cast("list[Any]", parsed), start=1):
        location = f"{path}, row {number}"
        try:
            yield Row(location=location, columns=checked_row(columns))
        except ValueError as error:
            yield BadRow(location=location, reason=str(error))


def _read_dataset(name: str, config: str | None, split: str) -> Iterator[Row | BadRow]:
    datasets: Any = importlib.import_module("datasets")  # this import takes seconds
    rows: Any = datasets.load_dataset(name, config, split=split)
    for number, columns in enumerate(rows, start=1):
        yield Row(location=f"{name}:{split}, row {number}", columns=dict(columns))
