"""The data stage: a task's problems in disjoint splits, or the user's own JSONL in their place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.problems import read_demonstrations, read_problems, write_demonstrations, write_problems
from data.sources import BadRow
from data.tasks.base import Task
from data.tasks.code import CodeConfig, CodeTask
from data.tasks.countdown import CountdownConfig, CountdownTask
from data.tasks.math import MathConfig, MathTask
from data.tasks.reasoning_gym import ReasoningGymConfig, ReasoningGymTask
from data.tasks.rows import group_of
from data.types import Demonstration, Problem, Verdict
from rewards.sandbox.isolation import IsolationUnavailable
from rewards.verifiers import VERIFIERS
from trainer.bad_rows import report_bad_rows
from trainer.contaminated import check_contamination, read_questions
from trainer.recipe import nearest, read_yaml_mapping
from trainer.runtime import RuntimeConfig, is_main_process
from trainer.stage import run_stage

SPLITS = ("demonstrations", "train", "validation", "test")
TaskConfig = CountdownConfig | MathConfig | CodeConfig | ReasoningGymConfig
# A task's config and how the task is made of it. One's own task is a file like data/tasks/math.py
# and a line here.
TASKS: dict[str, tuple[type, Callable[[Any], Task]]] = {
    "countdown": (CountdownConfig, lambda config: CountdownTask(config=config)),
    "math": (MathConfig, lambda config: MathTask(config=config)),
    "code": (CodeConfig, lambda config: CodeTask(config=config, judge=_solution_judge(config))),
    "reasoning_gym": (ReasoningGymConfig, lambda config: ReasoningGymTask(config=config)),
}


def _solution_judge(config: CodeConfig) -> Callable[[Problem, str], Verdict] | None:
    if not config.check_solutions:
        return None
    try:
        return VERIFIERS["code"]().verify
    except IsolationUnavailable as error:
        raise ValueError(
            f"check_solutions is true, but {error}; false takes the rows as they are"
        ) from error


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sizes of the splits, in problems. A `<split>_file` (JSONL) replaces what `task` would give.

    Bad rows of a source, a file or a contamination set are named and left out; more than
    `max_bad_rows` of them fail the stage. Questions of validation and test are looked for in the
    other splits, and those of `contamination_sets` (sources, see `data.sources`) in all of them:
    the same words, or a Jaccard similarity of word triples of at least `near_duplicate`. What is
    found is reported, and left out of train and demonstrations where `drop_contaminated` says so.
    """

    task: str = "countdown"
    demonstrations: int = 5000
    train: int = 10000
    validation: int = 6000
    test: int = 2000
    demonstrations_file: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    max_bad_rows: int = 0
    contamination_sets: tuple[str, ...] = ()
    near_duplicate: float = 0.7
    drop_contaminated: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(
                f"task is {self.task!r}; did you mean {nearest(self.task, TASKS)!r}? allowed: "
                f"{', '.join(TASKS)}"
            )
        if self.max_bad_rows < 0:
            raise ValueError(f"max_bad_rows is {self.max_bad_rows}; allowed: 0 or more")


def task_config_type(argv: Sequence[str]) -> type:
    """The config of the task that a command line and its `--config` file ask for."""
    task: Any = "countdown"
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv) and Path(argv[i + 1]).is_file():
            task = read_yaml_mapping(Path(argv[i + 1])).get("task", task)
    for i, word in enumerate(argv):
        if word == "--task" and i + 1 < len(argv):
            task = argv[i + 1]
        elif word.startswith("--task="):
            task = word.removeprefix("--task=")
    return TASKS[DataConfig(task=str(task)).task][0]


def run_data(runtime: RuntimeConfig, config: DataConfig, task: TaskConfig) -> None:
    """Write `<split>.jsonl` for the four splits. Raises ValueError for too many bad rows and when a
    group (Countdown: a multiset; else a question) of validation or test is in another split."""
    files = {name: getattr(config, f"{name}_file") for name in SPLITS}
    with run_stage("data", runtime, [config, task], {}) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        bad_rows: list[BadRow] = []
        if not all(files.values()):
            splits = TASKS[config.task][1](task).make_splits(
                runtime.seed,
                demonstrations=config.demonstrations,
                train=config.train,
                validation=config.validation,
                test=config.test,
            )
            bad_rows += splits.bad_rows
            write_demonstrations(folder / "demonstrations.jsonl", splits.demonstrations)
            write_problems(folder / "train.jsonl", splits.train)
            write_problems(folder / "validation.jsonl", splits.validation)
            write_problems(folder / "test.jsonl", splits.test)
        for name, path in files.items():
            if path is not None:
                bad_rows += _take_in(name, Path(path), folder / f"{name}.jsonl")
        test_sets: dict[str, dict[str, str]] = {}
        for source in config.contamination_sets:
            test_sets[source], bad = read_questions(source)
            bad_rows += bad
        report_bad_rows(bad_rows, config.max_bad_rows, folder, record)
        # Generated Countdown problems are disjoint as they are made.
        if config.task != "countdown" or any(files.values()) or test_sets:
            check_contamination(
                folder,
                test_sets,
                config.near_duplicate,
                drop=config.drop_contaminated,
                record=record,
            )
        check_disjoint(folder)
        for name in SPLITS:
            path = folder / f"{name}.jsonl"
            record.metrics[name] = sum(1 for _ in path.open(encoding="utf-8"))


def _take_in(split: str, source: Path, target: Path) -> list[BadRow]:
    """Copy one's own file, as it is where all its rows are good."""
    bad_rows: list[BadRow] = []
    if split == "demonstrations":
        demonstrations = read_demonstrations(source, bad_rows)
        if bad_rows:
            write_demonstrations(target, demonstrations)
    else:
        problems = read_problems(source, bad_rows)
        if bad_rows:
            write_problems(target, problems)
    if not bad_rows:
        shutil.copyfile(source, target)
    return bad_rows


def _key(problem: Problem) -> str:
    """What problems of two splits must not share: their group, or their prompt whatever its case
    and spaces."""
    return problem.group or group_of(problem.prompt)


def check_disjoint(folder: Path) -> None:
    demonstrations = read_split_demonstrations(folder)
    groups = {
        name: {_key(p) for p in read_split(folder, name)}
        for name in ("train", "validation", "test")
    }
    groups["training side"] = groups.pop("train") | {_key(d.problem) for d in demonstrations}
    names = list(groups)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = groups[first] & groups[second]
            if shared:
                raise ValueError(
                    f"{first} and {second} share {len(shared)} groups of problems, such as "
                    f"{min(shared)!r}; held-out problems must not be trained on"
                )


def read_split(folder: Path, name: str) -> list[Problem]:
    """A split's problems; none for a split of size 0."""
    path = folder / f"{name}.jsonl"
    return read_problems(path) if path.stat().st_size else []


def read_split_demonstrations(folder: Path) -> list[Demonstration]:
    path = folder / "demonstrations.jsonl"
    return read_demonstrations(path) if path.stat().st_size else []
