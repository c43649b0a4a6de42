"""Problems and demonstrations as JSON lines, written by this project or by its users.

The required columns are `prompt` (or `problem`), the exact text that the policy continues, and
`answer`. The optional columns are `completion` (or `solution`), `id`, `numbers` and `group`. Other
columns and blank lines are ignored. A null counts as an absent column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data.json_rows import column_as_text, parse_row
from data.settings import did_you_mean
from data.sources import BadRow
from data.tasks.countdown import group_key, parse_prompt
from data.types import Demonstration, Problem


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The content of one line."""

    problem: Problem
    solution: str | None


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write one line per problem, with its id, prompt, answer, numbers and group."""
    _write(path, (_problem_columns(problem) for problem in problems))


def write_demonstrations(path: Path, demonstrations: Iterable[Demonstration]) -> None:
    """Write one line per demonstration, with its id, prompt, completion, answer, numbers and
    group."""
    _write(
        path,
        (
            {**_problem_columns(demonstration.problem), "completion": demonstration.solution}
            for demonstration in demonstrations
        ),
    )


def read_problems(path: Path, bad_rows: list[BadRow] | None = None) -> list[Problem]:
    """The problems of a file, in order.

    A row without an id gets the name of the file (without suffix) and the line number as its id. A
    row with a Countdown prompt but without `numbers` or `group` gets them from the prompt.

    Raises ValueError for a bad row, with its file, line and reason, and for a file without rows.
    With `bad_rows`, a bad row is added to that list instead, and reading goes on.
    """
    return [row.problem for row in _read(path, bad_rows)]


def read_demonstrations(path: Path, bad_rows: list[BadRow] | None = None) -> list[Demonstration]:
    """The demonstrations of a file, in order.

    The rules and errors are those of `read_problems`. Also, every row needs a completion. One
    problem may have several rows, and these rows may have the same id.
    """
    return [
        Demonstration(problem=row.problem, solution=row.solution or "")
        for row in _read(path, bad_rows, demonstrations=True)
    ]


def _problem_columns(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id,
        "prompt": problem.prompt,
        "answer": problem.answer,
        "numbers": list(problem.numbers),
        "group": problem.group,
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def _read(
    path: Path, bad_rows: list[BadRow] | None, *, demonstrations: bool = False
) -> Iterator[_Row]:
    first_with_id: dict[str, Problem] = {}
    rows = 0
    # The file is read as bytes, because text mode would also end a line at "\r".
    with path.open("rb") as file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            rows += 1
            location = f"{path}, line {line_number}"
            try:
                row = _parse(line, default_id=f"{path.stem}-{line_number}")
                if demonstrations and row.solution is None:
                    raise ValueError("completion (or solution) is absent; it is required")
                known = first_with_id.setdefault(row.problem.id, row.problem)
                if known is not row.problem and not (demonstrations and known == row.problem):
                    raise ValueError(f"id {row.problem.id!r} was already used above")
            except ValueError as error:
                if bad_rows is None:
                    raise ValueError(f"{location}: {error}") from error
                bad_rows.append(BadRow(location=location, reason=str(error)))
                continue
            yield row
    if not rows:
        raise ValueError(f"{path} has no rows; it must have at least one")


def _parse(line: bytes, default_id: str) -> _Row:
    """The row; ValueError with the reason alone."""
    columns = parse_row(line)
    prompt = _text(columns, ("prompt", "problem"))
    answer = _text(column_as_text(columns, "answer"), ("answer",))
    for name, value in (("prompt (or problem)", prompt), ("answer", answer)):
        if not value:
            if value == "":
                raise ValueError(f"{name} is empty; it is required")
            near = did_you_mean(name.partition(" ")[0], columns)
            raise ValueError(f"{name} is absent; {near}it is required")
    assert prompt is not None and answer is not None
    solution = _text(columns, ("completion", "solution"))
    if solution == "":
        raise ValueError("completion (or solution) is empty")
    numbers = _numbers(columns)
    group = _text(columns, ("group",))
    countdown = parse_prompt(prompt)
    if countdown is not None:
        if numbers and sorted(numbers) != sorted(countdown[0]):
            raise ValueError(f"numbers is {list(numbers)}, but the prompt is {prompt!r}")
        if answer != str(countdown[1]):
            raise ValueError(f"answer is {answer!r}, but the prompt is {prompt!r}")
        numbers = numbers or countdown[0]
        group = group or group_key(numbers)
    identifier = _text(column_as_text(columns, "id"), ("id",))
    problem = Problem(
        id=identifier or default_id,
        prompt=prompt,
        answer=answer,
        group=group or "",
        numbers=numbers,
    )
    return _Row(problem=problem, solution=solution)


def _text(columns: dict[str, Any], names: Sequence[str]) -> str | None:
    """The text in the one column of `names` that the row has, or None. Raises ValueError when the
    row has two of them, or when the value is not text."""
    present = [name for name in names if columns.get(name) is not None]
    if not present:
        return None
    if len(present) > 1:
        raise ValueError(f"the row has both {' and '.join(present)}; it must have only one of them")
    value = columns[present[0]]
    if not isinstance(value, str):
        raise ValueError(f"{present[0]} is {value!r}; it must be text")
    return value


def _numbers(columns: dict[str, Any]) -> tuple[int, ...]:
    value = columns.get("numbers")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"numbers is {value!r}; it must be a list of integers")
    numbers: list[int] = []
    for item in cast("list[Any]", value):
        if not isinstance(item, int) or isinstance(item, bool) or item < 0:
            raise ValueError(f"numbers holds {item!r}; it must hold integers of 0 or more")
        numbers.append(item)
    return tuple(numbers)
