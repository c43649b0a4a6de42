"""Programming problems with tests: HumanEval's and MBPP's formats, and those of programming
contests (`data.tasks.code_contests`).

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
from typing import Any, Literal, cast, get_args

from data.prompts import PROMPTS, render
from data.sources import BadRow, Row, take_in
from data.tasks.base import Splits
from data.tasks.code_contests import (
    Compare,
    Contest,
    apps_row,
    code_contests_row,
    livecodebench_row,
)
from data.tasks.code_tests import plan_tests
from data.tasks.rows import group_of, id_prefix, splits_of_rows
from data.types import Demonstration, Problem, Verdict

RowFormat = Literal["humaneval", "mbpp", "apps", "code_contests", "livecodebench"]
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
    """What `Problem.answer` holds for a programming problem, as JSON.

    `prefix`: code that precedes a completion, the prompt of HumanEval, '' where the solution is a
    whole program; `tests`: code; `check`: the name of the function in it that takes the program's
    (HumanEval), or null (MBPP: asserts that call it by name); `names`: the program's functions that
    tests call, the first one being the one asked for; `setup`: code the tests need; `classes`:
    those of `names` that are classes, null where that is not known (then names like `CamelCase`).
    A program that reads standard input and prints has `cases` in the place of all that: inputs, and
    what is to be printed for each; `compare` says how (`rewards.verifiers.outputs`).
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
        """Raises ValueError, the reason alone, for anything but what `to_answer` writes."""
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
                raise ValueError(f"names holds {name!r}, which names no function")
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
    """Where programming problems are read from, and how they are put."""

    train_rows: str | None = None
    """Source (data/sources.py) of training rows; null where none are needed."""
    test_rows: str | None = None
    """Source (data/sources.py) of test rows; null where none are needed."""
    row_format: RowFormat = "humaneval"
    """Columns of the rows: humaneval, mbpp, apps, code_contests or livecodebench."""
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
        formats = get_args(RowFormat)
        if self.row_format not in formats:
            raise ValueError(f"row_format is {self.row_format!r}; allowed: {', '.join(formats)}")
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
        if demonstrations and training and not any(d.solution for d in training):
            raise ValueError(
                f"demonstrations is {demonstrations}; rows of {self.config.row_format} have no "
                "solutions, so 0 is allowed"
            )
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
        make = ROW_FORMATS[self.config.row_format]
        prefix = id_prefix(side, source)

        def checked(row: Row, number: int) -> Demonstration:
            made = make(row, f"{prefix}-{number}", self.config)
            if self.judge is not None and self.config.check_solutions and made.solution:
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
    """What the tests need before them: their imports (MBPP's sanitized rows) and other code."""
    imports: Any = row.columns.get("test_imports") or []
    if not isinstance(imports, list):
        raise ValueError(f"test_imports is {imports!r}; it must be a list of imports")
    setup = row.columns.get("test_setup_code") or ""
    if not isinstance(setup, str):
        raise ValueError(f"test_setup_code is {setup!r}; it must be text")
    return "\n".join([*map(str, cast("list[Any]", imports)), setup]).strip("\n")


def _functions_called(code: str, tests: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The functions and classes that `code` defines at its top and `tests` name, as they come; and
    those of them that are classes."""
    try:
        body = ast.parse(code).body
        defined = {name for node in body for name in _defined(node)}
        used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"code or test_list is no Python: {error}") from None
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
            prompt=render(question, config.prompt, config.chat_model),
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
