"""Programming problems with tests, in the formats of HumanEval and MBPP.

The columns of HumanEval (2107.03374) are `prompt` (the head of a function with its docstring),
`canonical_solution`, `test` (a function `check`) and `entry_point`. The columns of MBPP
(2108.07732) are `text` or `prompt`, `code`, `test_list` (asserts), `test_setup_code` and
`test_imports`. MBPP's `challenge_test_list` is not used, because published results are on
`test_list` alone.

The usual MBPP prompt shows all asserts. Here the asserts decide the reward, so a program could earn
it with a table of the shown answers. Therefore the prompt shows only the first `shown_tests`
asserts.
"""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from data.prompts import PROMPTS, render
from data.sources import Row
from data.tasks.base import Splits
from data.tasks.code_tests import plan_tests
from data.tasks.rows import group_of, splits_of_sources
from data.types import Demonstration, Problem, Verdict

CHAT_QUESTIONS = {
    "humaneval": "Complete this Python function. Answer with the whole function in one fenced code "
    "block.\n\n```python\n{text}\n```",
    "mbpp": "{text}\nAnswer with Python code in one fenced code block. It must pass tests like "
    "these:\n{tests}",
}


@dataclass(frozen=True, kw_only=True)
class CodeTests:
    """The tests of a programming problem. `Problem.answer` holds them as JSON.

    - `tests`: the code of the tests.
    - `names`: the functions of the program that the tests call. The first one is the function that
      the problem asks for.
    - `prefix`: the code before a completion. For HumanEval this is the prompt. It is '' when the
      solution is a whole program.
    - `check`: the name of the test function that takes the program's function (HumanEval), or null
      when asserts call the program's function by its name (MBPP).
    - `setup`: code that must run before the tests.
    """

    tests: str
    names: tuple[str, ...]
    prefix: str = ""
    check: str | None = None
    setup: str = ""

    def to_answer(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_answer(answer: str) -> CodeTests:
        """Read the text that `to_answer` writes. Raises ValueError for any other text, with the
        reason, without the place."""
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
                raise ValueError(f"names holds {name!r}, which is not the name of a function")
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
    """The sources of programming problems, and the form of their prompts."""

    train_rows: str | None = None
    """Source (data/sources.py) of training rows; null: no training rows."""
    test_rows: str | None = None
    """Source (data/sources.py) of test rows; null: no test rows."""
    row_format: Literal["humaneval", "mbpp"] = "humaneval"
    """Columns of the rows: humaneval or mbpp."""
    prompt: str = "as_is"
    """Style of the prompt, one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template is applied to the prompts; null: no chat template."""
    shown_tests: int = 1
    """Tests that an MBPP prompt shows, at least 1; a solution must pass all tests."""
    check_solutions: bool = True
    """true: a row is bad when the solution in the row does not pass the tests in the row."""

    def __post_init__(self) -> None:
        if self.shown_tests < 1:
            raise ValueError(f"shown_tests is {self.shown_tests}; allowed: 1 or more")
        if self.row_format not in ("humaneval", "mbpp"):
            raise ValueError(f"row_format is {self.row_format!r}; allowed: humaneval, mbpp")
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; allowed: {', '.join(PROMPTS)}")


@dataclass(frozen=True, kw_only=True)
class CodeTask:
    """Implements `data.tasks.base.Task`. `judge` is a verifier's function from a problem and a
    solution to a verdict. `check_solutions` needs it."""

    config: CodeConfig
    judge: Callable[[Problem, str], Verdict] | None = None
    name: str = "code"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        return splits_of_sources(
            self._read,
            (self.config.train_rows,),
            self.config.test_rows,
            seed,
            demonstrations=demonstrations,
            train=train,
            validation=validation,
            test=test,
        )

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        raise ValueError(f"problem {problem.id}: this task has only the solutions in its rows")

    def _read(self, row: Row, identifier: str) -> Demonstration:
        make = humaneval_row if self.config.row_format == "humaneval" else mbpp_row
        made = make(row, identifier, self.config)
        if self.judge is not None and self.config.check_solutions:
            verdict = self.judge(made.problem, made.solution)
            if not verdict.correct:
                raise ValueError(
                    f"the row's solution does not pass the row's tests: {verdict.reason}"
                )
        return made


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
    """The code that must run before the tests: their imports (in MBPP's sanitized rows) and other
    code."""
    imports: Any = row.columns.get("test_imports") or []
    if not isinstance(imports, list):
        raise ValueError(f"test_imports is {imports!r}; it must be a list of imports")
    setup = row.columns.get("test_setup_code") or ""
    if not isinstance(setup, str):
        raise ValueError(f"test_setup_code is {setup!r}; it must be text")
    return "\n".join([*map(str, cast("list[Any]", imports)), setup]).strip("\n")


def _functions_called(code: str, tests: str) -> tuple[str, ...]:
    """The functions and classes that `code` defines at its top level and that `tests` use, in the
    order of their use."""
    try:
        defined = {name for node in ast.parse(code).body for name in _defined(node)}
        used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"code or test_list is not valid Python: {error}") from None
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
