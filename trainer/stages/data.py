"""The data stage writes a task's problems, or the user's JSONL files, as disjoint splits."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.contamination import Overlap, cross_overlaps
from data.held_out import problem_key
from data.problems import read_demonstrations, read_problems, write_demonstrations, write_problems
from data.settings import did_you_mean
from data.slices import read_slices, write_slices
from data.sources import BadRow, Row, take_in
from data.tasks.base import Task
from data.tasks.code import CodeConfig, CodeTask
from data.tasks.countdown import CountdownConfig
from data.tasks.countdown_splits import CountdownTask
from data.tasks.countdown_thoughts import CountdownThoughtsConfig, CountdownThoughtsTask
from data.tasks.math import MathConfig, MathTask
from data.tasks.reasoning_gym import ReasoningGymConfig, ReasoningGymTask
from data.tasks.rows import group_of
from data.tasks.word_problems import WordProblemsConfig, WordProblemsTask
from data.types import Demonstration, Problem, Verdict
from rewards.sandbox.isolation import IsolationUnavailable
from rewards.verifiers.by_name import VERIFIERS, check_verifier
from trainer.runtime.command_line import peek
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import is_main_process
from trainer.runtime.skipped_rows import report_bad_rows
from trainer.runtime.stage import StageRecord, numbered_inputs, run_stage

TRAINING_SIDE = ("train", "demonstrations")
EXAMPLES_PRINTED = 5


def bare_question(problem: Problem) -> str:
    """The question alone, without the text that every prompt adds, if the group is the question.
    Otherwise the whole prompt."""
    asked = group_of(problem.group)
    return asked if asked and asked in group_of(problem.prompt) else problem.prompt


def check_contamination(
    folder: Path,
    test_sets: Mapping[str, Mapping[str, str]],
    threshold: float,
    *,
    drop: bool,
    record: StageRecord,
) -> None:
    """Write contamination.jsonl, and add the counts per pair of sets to the stage's metrics. With
    `drop`, train and demonstrations lose the overlapping rows. `test_sets` holds questions by the
    name of their source."""
    problems = {name: read_problems(folder / f"{name}.jsonl") if _any(folder, name) else []
                for name in ("test", "validation", "train")}  # fmt: skip
    demonstrations = (
        read_demonstrations(folder / "demonstrations.jsonl")
        if _any(folder, "demonstrations")
        else []
    )
    sets = {name: {p.id: bare_question(p) for p in split} for name, split in problems.items()}
    sets["demonstrations"] = {d.problem.id: bare_question(d.problem) for d in demonstrations}
    found = cross_overlaps({**sets, **test_sets}, ["test", "validation", *test_sets], threshold)
    # One of the test sets may be the source of the test split.
    reported = [o for o in found if not (o.second in test_sets and o.first in test_sets)]
    _report(reported, folder, record)
    bad = {
        (name, id)
        for overlap in found
        for name, id in (
            (overlap.first, overlap.first_id),
            (overlap.second, overlap.second_id),
        )
        if name in TRAINING_SIDE
    }
    record.metrics["contamination/dropped"] = len(bad) if drop else 0
    if drop and bad:
        kept = [p for p in problems["train"] if ("train", p.id) not in bad]
        write_problems(folder / "train.jsonl", kept)
        write_demonstrations(
            folder / "demonstrations.jsonl",
            [d for d in demonstrations if ("demonstrations", d.problem.id) not in bad],
        )


def _report(found: Sequence[Overlap], folder: Path, record: StageRecord) -> None:
    counts: Counter[str] = Counter()
    for overlap in found:
        kind = "exact" if overlap.exact else "near"
        counts[f"contamination/{kind}"] += 1
        counts[f"contamination/{overlap.first} and {overlap.second}/{kind}"] += 1
    totals = {f"contamination/{kind}": 0 for kind in ("exact", "near")}
    record.metrics |= totals | dict(counts)
    with (folder / "contamination.jsonl").open("w", encoding="utf-8") as file:
        for overlap in found:
            file.write(json.dumps(asdict(overlap)) + "\n")
    for overlap in found[:EXAMPLES_PRINTED]:
        print(
            f"contamination: {overlap.first} {overlap.first_id} and {overlap.second} "
            f"{overlap.second_id}, similarity {overlap.similarity:.2f}",
            flush=True,
        )


def _any(folder: Path, name: str) -> bool:
    return (folder / f"{name}.jsonl").stat().st_size > 0


def read_questions(source: str) -> tuple[dict[str, str], list[BadRow]]:
    """The questions of a test set by row number, and the rows without a question."""

    def make(row: Row, number: int) -> tuple[str, str]:
        return str(number), row.text("question", "problem", "prompt", "text")

    questions, bad = take_in(source, make)
    return dict(questions), bad


WRITTEN_SPLITS = ("demonstrations", "train", "validation", "test")
TaskConfig = CountdownConfig | MathConfig | CodeConfig | ReasoningGymConfig | WordProblemsConfig
# The config class of a task, and the function that makes the task from its config. To add a task,
# write a file like data/tasks/math.py and add a line here.
TASKS: dict[str, tuple[type, Callable[[Any], Task]]] = {
    "countdown": (CountdownConfig, lambda config: CountdownTask(config=config)),
    "countdown_thoughts": (
        CountdownThoughtsConfig,
        lambda config: CountdownThoughtsTask(config=config),
    ),
    "math": (MathConfig, lambda config: MathTask(config=config)),
    "code": (CodeConfig, lambda config: CodeTask(config=config, judge=_solution_judge(config))),
    "reasoning_gym": (ReasoningGymConfig, lambda config: ReasoningGymTask(config=config)),
    "word_problems": (WordProblemsConfig, lambda config: WordProblemsTask(config=config)),
}


def _solution_judge(config: CodeConfig) -> Callable[[Problem, str], Verdict] | None:
    if not config.check_solutions:
        return None
    try:
        return VERIFIERS["code"]().verify
    except IsolationUnavailable as error:
        raise ValueError(
            f"check_solutions is true, but {error}; with check_solutions: false no row is checked"
        ) from error


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where problems come from and how many there are.

    The stage looks for the questions of validation and test in the other splits, and for the
    questions of `contamination_sets` in all splits. Two questions overlap if they have the same
    words, or if the Jaccard similarity of their word triples is at least `near_duplicate`. The
    stage reports every overlap.
    """

    task: str = "countdown"
    """Problems: countdown, countdown_thoughts, math, code, reasoning_gym or word_problems."""
    verifier: str | None = None
    """Verifier that every later stage takes over; null: the one of the task."""
    demonstrations: int = 5000
    """Problems with a written solution, for supervised training."""
    train: int = 10000
    """Problems of the split train."""
    validation: int = 6000
    """Problems of the split validation."""
    test: int = 2000
    """Problems of the split test."""
    slices: dict[str, Any] = field(default_factory=dict[str, Any])
    """Named slices of train, validation and test: sizes by name, per split (data/slices.py)."""
    demonstrations_file: str | None = None
    """JSONL file that replaces the task's demonstrations; null: none."""
    train_file: str | None = None
    """JSONL file that replaces the task's training problems; null: none."""
    validation_file: str | None = None
    """JSONL file that replaces the task's validation problems; null: none."""
    test_file: str | None = None
    """JSONL file that replaces the task's test problems; null: none."""
    max_bad_rows: int = 0
    """The stage fails if more rows than this are unusable."""
    contamination_sets: tuple[str, ...] = ()
    """Sources (data/sources.py) of questions that no split should hold."""
    near_duplicate: float = 0.7
    """Jaccard similarity from which two questions count as the same, in [0, 1]."""
    drop_contaminated: bool = False
    """Leave overlapping questions out of train and demonstrations."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(
                f"task is {self.task!r}; {did_you_mean(self.task, TASKS)}allowed: "
                f"{', '.join(TASKS)}"
            )
        if self.verifier is not None:
            check_verifier(self.verifier)
        if self.max_bad_rows < 0:
            raise ValueError(f"max_bad_rows is {self.max_bad_rows}; allowed: 0 or more")
        read_slices(self.slices)


def task_config_type(argv: Sequence[str]) -> type:
    """The config class of the task that a command line and its `--config` file name."""
    task = peek("task", argv, "countdown")
    return TASKS[DataConfig(task=str(task)).task][0]


def given_files(config: DataConfig, task: TaskConfig) -> dict[str, str | None]:
    """The user's files, sources and chat model by key. Of several, each has a number."""
    given: dict[str, str | None] = {
        f"{n}_file": getattr(config, f"{n}_file") for n in WRITTEN_SPLITS
    }
    given |= {key: getattr(task, key, None) for key in ("train_rows", "test_rows", "chat_model")}
    given |= numbered_inputs("more_train_rows", getattr(task, "more_train_rows", ()))
    return given | numbered_inputs("contamination_sets", config.contamination_sets)


def run_data(runtime: RuntimeConfig, config: DataConfig, task: TaskConfig) -> None:
    """Write `<split>.jsonl` for the four splits. Raises ValueError for too many bad rows and when a
    group (Countdown: a multiset; else a question) of validation or test is in another split."""
    files = {name: getattr(config, f"{name}_file") for name in WRITTEN_SPLITS}
    inputs = given_files(config, task)
    with run_stage("data", runtime, [config, task], inputs, restarts=True) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        for name in ("bad_rows.jsonl", "contamination.jsonl"):  # of an attempt that failed
            (folder / name).unlink(missing_ok=True)
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
        # The generator of Countdown problems makes disjoint splits.
        if not config.task.startswith("countdown") or any(files.values()) or test_sets:
            check_contamination(
                folder,
                test_sets,
                config.near_duplicate,
                drop=config.drop_contaminated,
                record=record,
            )
        check_disjoint(folder)
        for name in WRITTEN_SPLITS:
            path = folder / f"{name}.jsonl"
            record.metrics[name] = sum(1 for _ in path.open(encoding="utf-8"))
        counts = ", ".join(f"{record.metrics[name]} {name}" for name in WRITTEN_SPLITS)
        print(f"rows in {folder}: {counts}")
        if config.slices:
            write_slices(folder, read_slices(config.slices), record.metrics)


def _take_in(split: str, source: Path, target: Path) -> list[BadRow]:
    """Copy a user's file, byte for byte if all its rows are good."""
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


def check_disjoint(folder: Path) -> None:
    demonstrations = read_split_demonstrations(folder)
    groups = {
        name: {problem_key(p) for p in read_split(folder, name)}
        for name in ("train", "validation", "test")
    }
    groups["training side"] = groups.pop("train") | {problem_key(d.problem) for d in demonstrations}
    names = list(groups)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = groups[first] & groups[second]
            if shared:
                advice = (
                    "held-out problems must not be trained on; drop_contaminated: true leaves "
                    "them out of the training side"
                    if second == "training side"
                    else "take them out of one of the two"
                )
                raise ValueError(
                    f"{first} and {second} share {len(shared)} groups of problems, such as "
                    f"{min(shared)!r}; {advice}"
                )


def read_split(folder: Path, name: str) -> list[Problem]:
    """The problems of a split; an empty list for a split of size 0."""
    path = folder / f"{name}.jsonl"
    return read_problems(path) if path.stat().st_size else []


def read_split_demonstrations(folder: Path) -> list[Demonstration]:
    path = folder / "demonstrations.jsonl"
    return read_demonstrations(path) if path.stat().st_size else []
