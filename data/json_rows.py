"""Rows of JSON as others write them: their encoding, their characters, their numbers."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

BYTE_ORDER_MARKS = (  # the longer ones first
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
SURROGATE = re.compile("[\ud800-\udfff]")


def decoded(line: bytes) -> str:
    """The text of a line, or of a file. Raises ValueError, the reason alone, for another encoding
    than UTF-8, with or without its byte order mark."""
    for mark, name in BYTE_ORDER_MARKS:
        if line.startswith(mark):
            raise ValueError(f"is {name} text, by its byte order mark; it must be UTF-8")
    if b"\0" in line:
        raise ValueError("holds zero bytes, as UTF-16 text does; it must be UTF-8")
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"is not UTF-8 text: byte {error.start + 1} is {line[error.start]:#04x}"
        ) from None


def parse_row(line: bytes) -> dict[str, Any]:
    """A line's JSON object. Raises ValueError, the reason alone, also for half a character
    (a lone surrogate) in it, which no file could hold afterwards."""
    text = decoded(line)
    try:
        parsed: Any = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    return checked_row(parsed, escaped=ESCAPED_SURROGATE.search(text) is not None)


def checked_row(parsed: Any, *, escaped: bool = True) -> dict[str, Any]:
    """As `parse_row`, of a value; `escaped` says that half a character may be in it."""
    if not isinstance(parsed, dict):
        raise ValueError(f"the row is a JSON {type(parsed).__name__}; it must be an object")
    columns = cast("dict[str, Any]", parsed)
    if escaped:
        for name, value in columns.items():
            if SURROGATE.search(json.dumps([name, value], ensure_ascii=False)):
                raise ValueError(
                    f"{name!a} has half a character (a lone surrogate): the encoding is wrong"
                )
    return columns


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file and their lines' numbers, from 1. Raises ValueError naming file, line and
    reason for a line that is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = parse_row(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            yield number, row


def integer_as_text(value: object) -> object:
    """An integer that stands where text must, as its text; anything else as it is. (A decimal
    fraction is not read: how it was written is lost.)"""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def column_as_text(columns: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The columns with the integer under `name` as text."""
    return {**columns, name: integer_as_text(columns.get(name))}
