"""The data stage: a task's problems in disjoint splits, or the user's own JSONL in their place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from data.problems import read_demonstrations, read_problems, write_demonstrations, write_problems
from data.tasks.countdown import CountdownConfig, CountdownTask
from trainer.runtime import RuntimeConfig, is_main_process
from trainer.stage import run_stage

SPLITS = ("demonstrations", "train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sizes of the splits, in problems. A `<split>_file` (JSONL) replaces what is generated."""

    demonstrations: int = 5000
    train: int = 10000
    validation: int = 6000
    test: int = 2000
    demonstrations_file: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None


def run_data(runtime: RuntimeConfig, config: DataConfig, task: CountdownConfig) -> None:
    """Write `<split>.jsonl` for the four splits. Raises ValueError for a bad row of an own file
    and when a group (Countdown: a multiset) of validation or test is also in another split."""
    files = {name: getattr(config, f"{name}_file") for name in SPLITS}
    with run_stage("data", runtime, [config, task], {}) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        if not all(files.values()):
            splits = CountdownTask(config=task).make_splits(
                runtime.seed,
                demonstrations=config.demonstrations,
                train=config.train,
                validation=config.validation,
                test=config.test,
            )
            write_demonstrations(folder / "demonstrations.jsonl", splits.demonstrations)
            write_problems(folder / "train.jsonl", splits.train)
            write_problems(folder / "validation.jsonl", splits.validation)
            write_problems(folder / "test.jsonl", splits.test)
        for name, path in files.items():
            if path is not None:
                shutil.copyfile(path, folder / f"{name}.jsonl")
        check_disjoint(folder)
        for name in SPLITS:
            path = folder / f"{name}.jsonl"
            record.metrics[name] = sum(1 for _ in path.open(encoding="utf-8"))


def check_disjoint(folder: Path) -> None:
    demonstrations = read_demonstrations(folder / "demonstrations.jsonl")
    groups = {
        name: {p.group or p.prompt for p in read_problems(folder / f"{name}.jsonl")}
        for name in ("train", "validation", "test")
    }
    groups["training side"] = groups.pop("train") | {
        d.problem.group or d.problem.prompt for d in demonstrations
    }
    names = list(groups)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = groups[first] & groups[second]
            if shared:
                raise ValueError(
                    f"{first} and {second} share {len(shared)} groups of problems, such as "
                    f"{min(shared)!r}; held-out problems must not be trained on"
                )
