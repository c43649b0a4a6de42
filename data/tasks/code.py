"""Programming problems with tests: HumanEval's and MBPP's formats.

HumanEval (2107.03374): `prompt` (a function's head with its documentation), `canonical_solution`,
`test` (a function `check`), `entry_point`. MBPP (2108.07732): `text` or `prompt`, `code`,
`test_list` (asserts), `test_setup_code`, `test_imports`.

MBPP's `challenge_test_list` is not used: published results are on `test_list` alone.

MBPP's prompts customarily show all asserts. Here they are the whole reward, which a table of the
shown answers would earn: the prompt shows the first `shown_tests` and the others stay hidden.
"""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from data.prompts import PROMPTS, render
from data.sources import BadRow, Row, take_in
from data.tasks.base import Splits
from data.tasks.code_tests import plan_tests
from data.tasks.rows import group_of, id_prefix, splits_of_rows
from data.types import Demonstration, Problem, Verdict

CHAT_QUESTIONS = {
    "humaneval": "Complete this Python function. Answer with the whole function in one fenced code "
    "block.\n\n```python\n{text}\n```",
    "mbpp": "{text}\nAnswer with Python code in one fenced code block. It must pass tests like "
    "these:\n{tests}",
}


@dataclass(frozen=True, kw_only=True)
class CodeTests:
    """What `Problem.answer` holds for a programming problem, as JSON.

    `prefix`: code that precedes a completion, the prompt of HumanEval, '' where the solution is a
    whole program; `tests`: code; `check`: the name of the function in it that takes the program's
    (HumanEval), or null (MBPP: asserts that call it by name); `names`: the program's functions that
    tests call, the first one being the one asked for; `setup`: code the tests need; `classes`:
    those of `names` that are classes, null where that is not known (then names like `CamelCase`).
    """

    tests: str
    names: tuple[str, ...]
    prefix: str = ""
    check: str | None = None
    setup: str = ""
    classes: tuple[str, ...] | None = None

    def to_answer(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_answer(answer: str) -> CodeTests:
        """Raises ValueError, the reason alone, for anything but what `to_answer` writes."""
        values: Any = json.loads(answer)
        if not isinstance(values, dict):
            raise ValueError("is not a JSON object")
        columns = cast("dict[str, Any]", values)
        names: Any = columns.get("names")
        texts = {name: columns.get(name, "") for name in ("tests", "prefix", "setup")}
        check = columns.get("check")
        if not isinstance(names, list) or not names:
            raise ValueError(f"names is {names!r}; it must be a list of function names")
        for name in cast("list[Any]", names):
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"names holds {name!r}, which names no function")
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"{name} is {text!r}; it must be text")
        if check is not None and not isinstance(check, str):
            raise ValueError(f"check is {check!r}; it must be a function's name or null")
        if not texts["tests"].strip():
            raise ValueError("tests is empty")
        return CodeTests(names=tuple(cast("list[str]", names)), check=check, **texts)


@dataclass(frozen=True, kw_only=True)
class CodeConfig:
    """Where programming problems are read from, and how they are put."""

    train_rows: str | None = None
    """Source (data/sources.py) of training rows; null where none are needed."""
    test_rows: str | None = None
    """Source (data/sources.py) of test rows; null where none are needed."""
    row_format: Literal["humaneval", "mbpp"] = "humaneval"
    """Columns of the rows: humaneval or mbpp."""
    prompt: str = "as_is"
    """Style in which a question is put; one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template the prompts get; null: none."""
    shown_tests: int = 1
    """Tests that an MBPP prompt shows, at least 1; all of a problem's tests judge."""
    check_solutions: bool = True
    """Count a row as bad where its own solution does not pass its own tests."""

    def __post_init__(self) -> None:
        if self.shown_tests < 1:
            raise ValueError(f"shown_tests is {self.shown_tests}; allowed: 1 or more")
        if self.row_format not in ("humaneval", "mbpp"):
            raise ValueError(f"row_format is {self.row_format!r}; allowed: humaneval, mbpp")
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; allowed: {', '.join(PROMPTS)}")


@dataclass(frozen=True, kw_only=True)
class CodeTask:
    """Implements `data.tasks.base.Task`. `judge` is what `check_solutions` asks: a verifier's
    verdict on a problem and a solution."""

    config: CodeConfig
    judge: Callable[[Problem, str], Verdict] | None = None
    name: str = "code"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        training, bad = self._take("train", self.config.train_rows)
        testing, more_bad = self._take("test", self.config.test_rows)
        return splits_of_rows(
            training,
            [d.problem for d in testing],
            [*bad, *more_bad],
            seed,
            demonstrations=demonstrations,
            train=train,
            validation=validation,
            test=test,
        )

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        raise ValueError(f"problem {problem.id}: solutions come from the rows alone")

    def _take(self, side: str, source: str | None) -> tuple[list[Demonstration], list[BadRow]]:
        if source is None:
            return [], []
        make = humaneval_row if self.config.row_format == "humaneval" else mbpp_row
        prefix = id_prefix(side, source)

        def checked(row: Row, number: int) -> Demonstration:
            made = make(row, f"{prefix}-{number}", self.config)
            if self.judge is not None and self.config.check_solutions:
                verdict = self.judge(made.problem, made.solution)
                if not verdict.correct:
                    raise ValueError(f"its own solution does not pass its tests: {verdict.reason}")
            return made

        return take_in(source, checked)


def humaneval_row(row: Row, identifier: str, config: CodeConfig) -> Demonstration:
    """Raises ValueError, the reason alone."""
    prompt, solution = row.text("prompt"), row.text("canonical_solution")
    tests = CodeTests(
        tests=row.text("test"), names=(row.text("entry_point"),), prefix=prompt, check="check"
    )
    if f"def {tests.names[0]}" not in prompt:
        raise ValueError(f"prompt does not define entry_point {tests.names[0]!r}")
    if config.chat_model is not None:
        question = CHAT_QUESTIONS["humaneval"].replace("{text}", prompt.strip())
        solution = f"```python\n{prompt.rstrip()}\n{solution.rstrip()}\n```"
    else:
        question, solution = prompt, solution.rstrip()
    return _demonstration(question, solution, tests, identifier, group_of(prompt), config)


def mbpp_row(row: Row, identifier: str, config: CodeConfig) -> Demonstration:
    """Raises ValueError, the reason alone."""
    text, code = row.text("text", "prompt"), row.text("code").replace("\r\n", "\n")
    asserts = row.columns.get("test_list")
    if not isinstance(asserts, list) or not asserts:
        raise ValueError(f"test_list is {asserts!r}; it must be a list of asserts")
    lines = [str(test) for test in cast("list[Any]", asserts)]
    tests, shown = "\n".join(lines), "\n".join(lines[: config.shown_tests])
    names = _functions_called(code, tests)
    spec = CodeTests(tests=tests, names=names, setup=_setup(row))
    if config.chat_model is not None:
        question = CHAT_QUESTIONS["mbpp"].replace("{text}", text).replace("{tests}", shown)
        code = f"```python\n{code.strip()}\n```"
    else:
        question, code = f'"""\n{text.strip()}\n{shown}\n"""\n', code.strip()
    return _demonstration(question, code, spec, identifier, group_of(text), config)


def _setup(row: Row) -> str:
    """What the tests need before them: their imports (MBPP's sanitized rows) and other code."""
    imports: Any = row.columns.get("test_imports") or []
    if not isinstance(imports, list):
        raise ValueError(f"test_imports is {imports!r}; it must be a list of imports")
    setup = row.columns.get("test_setup_code") or ""
    if not isinstance(setup, str):
        raise ValueError(f"test_setup_code is {setup!r}; it must be text")
    return "\n".join([*map(str, cast("list[Any]", imports)), setup]).strip("\n")


def _functions_called(code: str, tests: str) -> tuple[str, ...]:
    """The functions and classes that `code` defines at its top and `tests` name, as they come."""
    try:
        defined = {name for node in ast.parse(code).body for name in _defined(node)}
        used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"code or test_list is no Python: {error}") from None
    names = tuple(dict.fromkeys(name for name in used if name in defined))
    if not names:
        raise ValueError("test_list calls no function that code defines")
    return names


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _demonstration(
    question: str,
    solution: str,
    tests: CodeTests,
    identifier: str,
    group: str,
    config: CodeConfig,
) -> Demonstration:
    plan_tests(tests.tests, tests.setup, tests.names, tests.check)
    return Demonstration(
        problem=Problem(
            id=identifier,
            prompt=render(question, config.prompt, config.chat_model),
            answer=tests.to_answer(),
            group=group,
        ),
        solution=solution,
    )
