"""Programming problems with tests, in the formats of HumanEval, MBPP and programming contests.

The columns of HumanEval (2107.03374) are `prompt` (the head of a function with its docstring),
`canonical_solution`, `test` (a function `check`) and `entry_point`. The columns of MBPP
(2108.07732) are `text` or `prompt`, `code`, `test_list` (asserts), `test_setup_code` and
`test_imports`. MBPP's `challenge_test_list` is not used, because published results are on
`test_list` alone. `data.tasks.code_contests` reads the rows of contests.

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
from typing import Any, Literal, cast, get_args

from data.prompts import PROMPTS, render
from data.sources import Row
from data.tasks.base import Splits
from data.tasks.code_contests import (
    Compare,
    Contest,
    apps_row,
    code_contests_row,
    livecodebench_row,
)
from data.tasks.code_tests import plan_tests
from data.tasks.rows import group_of, splits_of_sources
from data.types import Demonstration, Problem, Verdict

COMPARE = get_args(Compare)
CHAT_QUESTIONS = {
    "humaneval": "Complete this Python function. Answer with the whole function in one fenced code "
    "block.\n\n```python\n{text}\n```",
    "mbpp": "{text}\nAnswer with Python code in one fenced code block. It must pass tests like "
    "these:\n{tests}",
    "contest": "{text}\n\nAnswer with {what}, in Python, in one fenced code block.",
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
    - `classes`: the names that are the names of classes, or null when that is not known. Then it
      is the names that are spelled `CamelCase`.
    - `cases`: for a program that reads standard input and prints, pairs of an input and what to
      print for it. Then there are no tests and no names.
    - `compare`: how a printed text is compared (`rewards.verifiers.outputs`).
    """

    tests: str = ""
    names: tuple[str, ...] = ()
    prefix: str = ""
    check: str | None = None
    setup: str = ""
    classes: tuple[str, ...] | None = None
    cases: tuple[tuple[str, str], ...] = ()
    compare: Compare = "tokens"

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
        if columns.get("cases"):
            return _cases_from(columns)
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
        listed = [str(name) for name in cast("list[Any]", names)]
        classes: Any = columns.get("classes")
        if classes is not None:
            classes = _texts(classes, "classes")
            if not set(classes) <= set(listed):
                raise ValueError(f"classes is {classes!r}; it must hold some of names")
        return CodeTests(names=tuple(listed), check=check, classes=classes, **texts)


def _cases_from(columns: dict[str, Any]) -> CodeTests:
    cases: Any = columns["cases"]
    if not isinstance(cases, list):
        raise ValueError(f"cases is {str(cases)[:80]!r}; it must be a list of inputs and outputs")
    pairs = [_texts(case, "cases") for case in cast("list[Any]", cases)]
    compare: Any = columns.get("compare", "tokens")
    if compare not in COMPARE:
        raise ValueError(f"compare is {compare!r}; allowed: {', '.join(COMPARE)}")
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("cases holds something else than pairs of an input and an output")
    return CodeTests(cases=tuple((pair[0], pair[1]) for pair in pairs), compare=compare)


def _texts(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{name} holds {str(values)[:80]!r}; it must hold lists of text")
    found = tuple(value for value in cast("list[Any]", values) if isinstance(value, str))
    if len(found) != len(cast("list[Any]", values)):
        raise ValueError(
            f"{name} holds {str(cast('Any', values))[:80]!r}; it must hold lists of text"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class CodeConfig:
    """The sources of programming problems, and the form of their prompts."""

    train_rows: str | None = None
    """Source (data/sources.py) of training rows; null: no training rows."""
    test_rows: str | None = None
    """Source (data/sources.py) of test rows; null: no test rows."""
    row_format: Literal["humaneval", "mbpp", "apps", "code_contests", "livecodebench"] = "humaneval"
    """Columns of the rows: humaneval, mbpp, apps, code_contests or livecodebench."""
    prompt: str = "as_is"
    """Style of the prompt, one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template is applied to the prompts; null: no chat template."""
    thinking: bool | None = None
    """enable_thinking of the chat template, as in Qwen3; null: the template's own choice."""
    shown_tests: int = 1
    """Tests that an MBPP prompt shows, at least 1; a solution must pass all tests."""
    check_solutions: bool = True
    """true: a row is bad when the solution in the row does not pass the tests in the row."""

    def __post_init__(self) -> None:
        if self.shown_tests < 1:
            raise ValueError(f"shown_tests is {self.shown_tests}; allowed: 1 or more")
        if self.row_format not in ROW_FORMATS:
            allowed = ", ".join(ROW_FORMATS)
            raise ValueError(f"row_format is {self.row_format!r}; allowed: {allowed}")
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
        if demonstrations and self.config.row_format == "livecodebench":
            raise ValueError(
                f"demonstrations is {demonstrations}; allowed: 0, because the rows of "
                "LiveCodeBench have no solutions"
            )
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
        made = ROW_FORMATS[self.config.row_format](row, identifier, self.config)
        if self.judge is not None and self.config.check_solutions and made.solution:
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
    names, classes = _functions_called(code, tests)
    spec = CodeTests(tests=tests, names=names, setup=_setup(row), classes=classes)
    if config.chat_model is not None:
        question = CHAT_QUESTIONS["mbpp"].replace("{text}", text).replace("{tests}", shown)
        code = f"```python\n{code.strip()}\n```"
    else:
        question, code = f'"""\n{text.strip()}\n{shown}\n"""\n', code.strip()
    return _demonstration(question, code, spec, identifier, group_of(text), config)


def contest_row(read: Callable[[Row], Contest]) -> RowMaker:
    """Of a contest's format, which `read` knows. The maker raises ValueError, the reason alone."""

    def make(row: Row, identifier: str, config: CodeConfig) -> Demonstration:
        contest = read(row)
        text, solution = contest.text.strip(), contest.solution.strip()
        if contest.cases:
            spec = CodeTests(cases=contest.cases, compare=contest.compare)
            what = "a program that reads standard input and prints"
        else:
            spec = CodeTests(tests=contest.check, names=(contest.name,), check="check", classes=())
            what = f"a function {contest.name}"
        if contest.starter.strip():
            text += f"\n\nBegin with this:\n{contest.starter.strip()}"
        if config.chat_model is not None:
            question = CHAT_QUESTIONS["contest"].replace("{what}", what).replace("{text}", text)
            solution = f"```python\n{solution}\n```" if solution else ""
        else:
            question = f'"""\n{text}\n\nWrite {what}.\n"""\n'
        group = group_of(contest.text)
        return _demonstration(question, solution, spec, identifier, group, config)

    return make


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


def _functions_called(code: str, tests: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The functions and classes that `code` defines at its top level and that `tests` use, in the
    order of their use. Then those of them that are classes."""
    try:
        body = ast.parse(code).body
        defined = {name for node in body for name in _defined(node)}
        used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"code or test_list is not valid Python: {error}") from None
    names = tuple(dict.fromkeys(name for name in used if name in defined))
    if not names:
        raise ValueError("test_list calls no function that code defines")
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    return names, tuple(name for name in names if name in classes)


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
    if not tests.cases:
        plan_tests(tests.tests, tests.setup, tests.names, tests.check)
    return Demonstration(
        problem=Problem(
            id=identifier,
            prompt=render(question, config.prompt, config.chat_model, config.thinking),
            answer=tests.to_answer(),
            group=group,
        ),
        solution=solution,
    )


RowMaker = Callable[[Row, str, CodeConfig], Demonstration]
ROW_FORMATS: dict[str, RowMaker] = {
    "humaneval": humaneval_row,
    "mbpp": mbpp_row,
    "apps": contest_row(apps_row),
    "code_contests": contest_row(code_contests_row),
    "livecodebench": contest_row(livecodebench_row),
}
