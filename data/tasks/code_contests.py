"""Rows of programming contests: APPS's, CodeContests' and LiveCodeBench's formats.

APPS (2105.09938): `question`, `solutions` and `input_output` (JSON: `inputs`, `outputs`, and
`fn_name` where a function is called), `starter_code`. CodeContests (2203.07814): `description`,
`solutions` (`language`, `solution`), `public_tests`, `private_tests`, `generated_tests` (`input`,
`output`). LiveCodeBench (2403.07974): `question_content`, `starter_code`, `public_test_cases` and
`private_test_cases` (JSON, the latter also packed), `metadata` (JSON: `func_name`); no solutions.

Most are programs that read standard input and print. Where a function is called, tuples of the
program's count as lists, since JSON has no tuples.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from dataclasses import dataclass
from typing import Any, Literal, cast

from data.sources import Row

Compare = Literal["tokens", "tokens_any_case", "lines"]
PYTHON_3 = 3  # in CodeContests' list of languages
AS_LISTS = (
    "def as_lists(value):\n"
    "    if type(value) in (list, tuple):\n"
    "        return [as_lists(item) for item in value]\n"
    "    return value\n"
)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A row. `cases` are inputs and outputs of a program that reads and prints; where it is empty,
    `check` is code with a function `check` that takes the function `name`. `solution` is '' where
    the row has none."""

    text: str
    starter: str
    solution: str
    cases: tuple[tuple[str, str], ...] = ()
    compare: Compare = "tokens"
    name: str = ""
    check: str = ""


def apps_row(row: Row) -> Contest:
    """Raises ValueError, the reason alone."""
    tests = _object(row.text("input_output"), "input_output")
    inputs, outputs = _list(tests.get("inputs"), "inputs"), _list(tests.get("outputs"), "outputs")
    if len(inputs) != len(outputs) or not inputs:
        raise ValueError(f"input_output has {len(inputs)} inputs and {len(outputs)} outputs")
    solutions = _list(_json(row.columns.get("solutions") or "[]", "solutions"), "solutions")
    text, starter = row.text("question"), str(row.columns.get("starter_code") or "")
    solution = str(solutions[0]) if solutions else ""
    name: Any = tests.get("fn_name")
    if name is None:
        cases = tuple((_text(a), _text(b)) for a, b in zip(inputs, outputs, strict=True))
        return Contest(text=text, starter=starter, solution=solution, cases=cases)
    calls: list[tuple[list[Any], list[Any]]] = []
    for given, expected in zip(inputs, outputs, strict=True):
        # An output stands in a list of one, or alone.
        alone = cast("list[Any]", expected)[:1] if isinstance(expected, list) else []
        calls.append((_list(given, "inputs"), [expected, *alone]))
    check = _check(str(name), calls)
    return Contest(text=text, starter=starter, solution=solution, name=str(name), check=check)


def code_contests_row(row: Row) -> Contest:
    """Raises ValueError, the reason alone."""
    cases: list[tuple[str, str]] = []
    for name in ("public_tests", "private_tests", "generated_tests"):
        tests = _object(row.columns.get(name) or {}, name)
        given, expected = (_list(tests.get(side) or [], name) for side in ("input", "output"))
        if len(given) != len(expected):
            raise ValueError(f"{name} has {len(given)} inputs and {len(expected)} outputs")
        cases += [(_text(a), _text(b)) for a, b in zip(given, expected, strict=True)]
    if not cases:
        raise ValueError("it has no tests")
    solutions = _object(row.columns.get("solutions") or {}, "solutions")
    languages, texts = (_list(solutions.get(n) or [], n) for n in ("language", "solution"))
    ours = [text for kind, text in zip(languages, texts, strict=False) if kind == PYTHON_3]
    return Contest(
        text=row.text("description"),
        starter="",
        solution=str(ours[0]) if ours else "",
        cases=tuple(cases),
        compare="tokens_any_case",
    )


def livecodebench_row(row: Row) -> Contest:
    """Raises ValueError, the reason alone."""
    tests = [
        cast("dict[str, Any]", test)
        for name in ("public_test_cases", "private_test_cases")
        for test in _list(_unpacked(row.columns.get(name) or "[]", name), name)
        if isinstance(test, dict)
    ]
    if not tests:
        raise ValueError("it has no tests")
    pairs = [(_text(test.get("input", "")), _text(test.get("output", ""))) for test in tests]
    metadata = _object(row.columns.get("metadata") or {}, "metadata")
    text, starter = row.text("question_content"), str(row.columns.get("starter_code") or "")
    if all(test.get("testtype") != "functional" for test in tests):
        cases = tuple(pairs)
        return Contest(text=text, starter=starter, solution="", cases=cases, compare="lines")
    calls = [
        ([_json(line, "input") for line in given.split("\n")], [_json(expected, "output")])
        for given, expected in pairs
    ]
    name = str(metadata.get("func_name") or "")
    return Contest(text=text, starter=starter, solution="", name=name, check=_check(name, calls))


def _check(name: str, calls: list[tuple[list[Any], list[Any]]]) -> str:
    """Each call with its arguments, and the values of which one is expected."""
    if not name.isidentifier():
        raise ValueError(f"the function asked for is called {name!r}")
    lines = [f"    assert as_lists(call(*{given!r})) in {wanted!r}" for given, wanted in calls]
    return AS_LISTS + "\n".join(["def check(call):", *lines]) + "\n"


def _json(text: Any, name: str) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None


def _object(text: Any, name: str) -> dict[str, Any]:
    value = _json(text, name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {str(value)[:80]!r}; it must be a JSON object")
    return cast("dict[str, Any]", value)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is {str(value)[:80]!r}; it must be a list")
    return cast("list[Any]", value)


def _text(value: Any) -> str:
    """An input or output: text, or its lines (APPS has both)."""
    if isinstance(value, list):
        return "\n".join(str(line) for line in cast("list[Any]", value))
    return value if isinstance(value, str) else json.dumps(value)


UNPACKING = (
    binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, LookupError,
    AttributeError, TypeError,
)  # fmt: skip


class _TextOnly(pickle.Unpickler):
    """Reads text that was pickled, and no object of any class."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"holds an object of {module_name}")


def _unpacked(value: Any, name: str) -> Any:
    """JSON, or JSON that was pickled, compressed and written in base 64."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
        return _json(value, name)
    try:
        packed = zlib.decompress(base64.b64decode(value, validate=True))
        return _json(_TextOnly(io.BytesIO(packed)).load(), name)
    except UNPACKING as error:
        raise ValueError(f"{name} cannot be unpacked: {error}") from None
