"""Model-written programs in the sandbox: published ones pass, mutants fail, hostile ones do no harm
and leave nothing, as root and as an ordinary user."""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from data.sources import take_in
from data.tasks.code import CodeConfig, CodeTests, humaneval_row
from data.types import Demonstration, Outcome, Problem
from rewards.sandbox.isolation import Limits, start, why_not_isolated
from rewards.sandbox.users import FIRST_UID
from rewards.verifiers.programs import CodeVerifier

# No two of them may run at once: they look for what sandboxes left behind on the whole machine.
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ORDINARY = 0x70000000 + 4242  # nobody's
# Mutants whose outputs differ but lie within the tolerance of the problem's own tests.
KNOWN_SURVIVORS: set[str] = set()
# Floods of which the machine may end some processes and leave the program.
SURVIVE = {"memory of many processes"}


@pytest.fixture(scope="module", autouse=True)
def isolation() -> None:
    reason = why_not_isolated()
    if reason is not None:
        if os.environ.get("THINKTREE_REQUIRE_SANDBOX") == "1":
            pytest.fail(f"THINKTREE_REQUIRE_SANDBOX=1, but {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="module")
def humaneval(published_data: Path) -> list[Demonstration]:
    file = str(published_data / "HumanEval.jsonl.gz")
    rows, bad = take_in(file, lambda row, n: humaneval_row(row, str(n), CodeConfig()))
    assert len(rows) == 164 and bad == []
    return rows


@pytest.fixture(scope="module")
def readable_checkout() -> Iterator[Path]:
    """What the hostile programs' script needs, in a folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    for name in ("data", "rewards"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("hostile_programs.py"), folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run_hostile(folder: Path, python: str, **user: Any) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-B", "hostile_programs.py"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=300,
        **user,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def assert_no_harm(found: dict[str, Any]) -> None:
    verdicts = found["verdicts"]
    outcomes = {
        kind: {name: outcome for name, (outcome, _) in judged.items()}
        for kind, judged in verdicts.items()
    }
    reasons = [reason for judged in verdicts.values() for _, reason in judged.values()]
    assert [reason for reason in reasons if "GOT THROUGH" in reason] == []
    assert outcomes["honest"] == {"honest": "correct", "honest again": "correct"}
    assert len(outcomes["attacks"]) > 50
    # They return the right values: whatever else fails them is harm, or a check too many.
    assert [name for name, outcome in outcomes["attacks"].items() if outcome != "correct"] == []
    assert {n for n, outcome in outcomes["floods"].items() if outcome != "wrong"} <= SURVIVE
    assert [name for name, outcome in outcomes["cheats"].items() if outcome == "correct"] == []
    assert found["canary"] == "unharmed" and found["folder"] == ["canary"]
    assert found["left_running"] == [] and found["new_files"] == [] and found["connected"] == []
    assert found["parent_alive"]
    assert found["slowest"] < 6.0 + 5.0


def test_hostile_programs_as_this_user(readable_checkout: Path) -> None:
    found = run_hostile(readable_checkout, sys.executable)
    assert found["user"] == os.getuid()
    assert_no_harm(found)


def test_hostile_programs_as_an_ordinary_user(readable_checkout: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("this is an ordinary user already")
    pythons = (
        os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
        "/usr/bin/python3",
    )
    python = next(
        (
            path
            for path in pythons
            if Path(path).is_file()
            and all(p.stat().st_mode & stat.S_IXOTH for p in [Path(path), *Path(path).parents])
        ),
        None,
    )
    assert python is not None, "no Python that an ordinary user may run"
    found = run_hostile(readable_checkout, python, user=ORDINARY, group=ORDINARY, extra_groups=[])
    assert found["user"] == ORDINARY
    assert_no_harm(found)


def test_all_canonical_solutions_pass(humaneval: list[Demonstration]) -> None:
    verifier = CodeVerifier(limits=Limits(seconds=30))
    verdicts = {d.problem.id: verifier.verify(d.problem, d.solution) for d in humaneval}
    assert {id: v.reason for id, v in verdicts.items() if not v.correct} == {}


# Establishes, apart from the verifier, whether a mutant returns something else than the published
# solution on some input of the tests. Trusted code only: published, or one operator away from it.
DIFFERS = """
import copy, json, signal, sys
task = json.load(sys.stdin)
def outcome(f, arguments):
    signal.alarm(2)
    try:
        return repr(f(*copy.deepcopy(arguments)))
    except BaseException as error:
        return type(error).__name__
    finally:
        signal.alarm(0)
def out_of_time(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, out_of_time)
spaces = []
for source in task["programs"]:
    space = {"__name__": "m"}
    exec(source, space)
    spaces.append(space)
first, second = (space[task["name"]] for space in spaces)
calls = []
def recorder(*arguments):
    calls.append(copy.deepcopy(arguments))
    return first(*arguments)
exec(task["tests"], spaces[0])
spaces[0]["check"](recorder)
print(json.dumps(any(outcome(first, c) != outcome(second, c) for c in calls[:200])))
"""


class Mutate(ast.NodeTransformer):
    """Change the one node whose turn it is."""

    COMPARISONS: ClassVar = {
        ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
        ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    }  # fmt: skip
    OPERATORS: ClassVar = {
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
        ast.Mod: ast.FloorDiv, ast.Div: ast.Mult,
    }  # fmt: skip

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.seen = 0

    def mine(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.turn

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        other = self.COMPARISONS.get(type(node.ops[0]))
        if other is not None and self.mine():
            node.ops[0] = other()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        other = self.OPERATORS.get(type(node.op))
        if other is not None and self.mine():
            node.op = other()
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            return ast.Constant(not node.value) if self.mine() else node
        if isinstance(node.value, int):
            return ast.Constant(node.value + 1) if self.mine() else node
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None and self.mine():
            node.value = ast.Tuple([node.value, ast.Constant(0)], ast.Load())
        return node


def mutants(problem: Problem, solution: str, most: int) -> list[str]:
    tests = CodeTests.from_answer(problem.answer)
    tree = ast.parse(tests.prefix + solution)
    counter = Mutate(-1)
    counter.visit(ast.parse(tests.prefix + solution))
    turns = range(0, counter.seen, max(1, counter.seen // most))
    found: list[str] = []
    for turn in list(turns)[:most]:
        tree = ast.parse(tests.prefix + solution)
        found.append(ast.unparse(ast.fix_missing_locations(Mutate(turn).visit(tree))))
    return found


def differs(problem: Problem, solution: str, mutant: str) -> bool:
    tests = CodeTests.from_answer(problem.answer)
    task = {"programs": [tests.prefix + solution, mutant], "tests": tests.tests}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", DIFFERS],
        input=json.dumps({**task, "name": tests.names[0]}),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


MUTANTS = 2 if os.environ.get("THINKTREE_ALL_PROGRAMS") else 1  # per program


def test_mutants_with_other_outputs_fail(humaneval: list[Demonstration]) -> None:
    verifier = CodeVerifier(limits=Limits(seconds=5))
    killed, equal, survivors = 0, 0, set[str]()
    for d in humaneval:
        for number, mutant in enumerate(mutants(d.problem, d.solution, most=MUTANTS)):
            if not differs(d.problem, d.solution, mutant):
                equal += 1
                continue
            if verifier.verify(d.problem, f"```python\n{mutant}\n```").correct:
                survivors.add(f"{d.problem.id}/{number}")
            else:
                killed += 1
    print(f"{killed} mutants killed, {equal} equal on all inputs, survivors: {sorted(survivors)}")
    assert killed > 100 * MUTANTS
    assert survivors == KNOWN_SURVIVORS


LEAVES_A_CHILD = (
    "import os, time\nopen('left', 'w').close()\nif os.fork() == 0:\n    os.setsid()\n"
    "    time.sleep(600)\ndef f(x):\n    return x * x\n"
)


def sandboxes_processes() -> set[str]:
    """Processes of users that only sandboxes have, and of programs that only they run, whatever
    their state: a dead one that nobody waited for has no command line."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        folder = Path("/proc", pid)
        try:
            named = (folder / "stat").read_text(encoding="utf-8").startswith(f"{pid} (bwrap)")
            boots = b"import json, os, resource" in (folder / "cmdline").read_bytes()
            if named or boots or folder.stat().st_uid >= FIRST_UID:
                found.add(pid)
        except OSError:
            continue
    return found


def test_no_process_is_left_dead_or_alive() -> None:
    before = sandboxes_processes()
    tests = CodeTests(tests="def check(f):\n    assert f(2) == 4\n", names=("f",), check="check")
    problem = Problem(id="p", prompt="", answer=tests.to_answer())
    for program, outcome in (
        (LEAVES_A_CHILD, Outcome.CORRECT),
        (LEAVES_A_CHILD.replace("return x * x", "os._exit(0)"), Outcome.WRONG),
        (LEAVES_A_CHILD.replace("return x * x", "time.sleep(600)"), Outcome.WRONG),
        (LEAVES_A_CHILD.replace("return x * x", "return x"), Outcome.WRONG),
        ("def f(x):\n    return x * x\n", Outcome.CORRECT),
    ):
        assert CodeVerifier(limits=Limits(seconds=2)).verify(problem, program).outcome is outcome
        assert sandboxes_processes() <= before
    for wait in (0.0, 0.02, 0.04, 0.08, 0.16):  # ended while it is being set up
        process = start(
            "run_program",
            {"readings": [], "names": [], "prints": False, "channel": [0, 1]},
            Limits(),
            isolated=True,
        )
        time.sleep(wait)
        began = time.monotonic()
        process.kill()
        assert time.monotonic() - began < 2.0
        assert sandboxes_processes() <= before


# THINKTREE_ALL_PROGRAMS=1: so many that a leak of one in a hundred would show.
PROGRAMS = 1000 if os.environ.get("THINKTREE_ALL_PROGRAMS") else 250


def test_many_programs_leave_nothing() -> None:
    before = sandboxes_processes()
    files = set(os.listdir(tempfile.gettempdir()))  # noqa: PTH208
    handles = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    tests = CodeTests(tests="def check(f):\n    assert f(2) == 4\n", names=("f",), check="check")
    problem = Problem(id="p", prompt="", answer=tests.to_answer())
    verifier = CodeVerifier(limits=Limits(seconds=10))
    for number in range(PROGRAMS):
        verdict = verifier.verify(problem, LEAVES_A_CHILD.replace("left", f"left{number}"))
        assert verdict.outcome is Outcome.CORRECT, (number, verdict)
    assert sandboxes_processes() <= before
    assert len(os.listdir("/proc/self/fd")) <= len(handles)  # noqa: PTH208
    left = set(os.listdir(tempfile.gettempdir())) - files  # noqa: PTH208
    assert [name for name in left if name.startswith("left")] == []
    assert Path("/proc/self/mounts").read_text(encoding="utf-8") == mounts
