"""The label stage: Monte Carlo step labels of a policy's own rollouts, as rows on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.types import Problem, StepLabels
from search.base import SearchResult, Session
from search.batcher import Journal, read_whole_lines, run_searches
from search.label import LabelConfig, collect_rollouts, step_labels
from search.tree import usage_from_json
from trainer.runtime import RuntimeConfig
from trainer.searching import Workbench, progress_printer
from trainer.stage import run_stage


@dataclass(frozen=True, kw_only=True)
class LabelStageConfig:
    """Label the first `num_problems` of `<data>/<split>.jsonl`, after `skip` ones."""

    policy: str
    data: str
    split: str = "train"
    skip: int = 0
    num_problems: int = 2000
    verifier: str = "countdown"


def run_label(runtime: RuntimeConfig, stage: LabelStageConfig, config: LabelConfig) -> None:
    """Write labels.jsonl: TRL's stepwise-supervision columns, token ids, counts and errors."""
    from accelerate import Accelerator

    inputs = {"policy": stage.policy, "data": stage.data}
    with run_stage("label", runtime, [stage, config], inputs) as record:
        accelerator = Accelerator()
        workbench = Workbench(
            policy=stage.policy,
            reward_model=None,
            verifier=stage.verifier,
            seed=runtime.seed,
            accelerator=accelerator,
        )
        problems = read_problems(Path(stage.data) / f"{stage.split}.jsonl")
        problems = problems[stage.skip : stage.skip + stage.num_problems]
        folder = Path(runtime.output_dir)
        _label_shard(workbench, problems, config, folder)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            solved = _merge(problems, folder, record)
            record.metrics |= {"problems": len(problems), "solved": solved}
        accelerator.wait_for_everyone()


def _label_shard(
    workbench: Workbench, problems: list[Problem], config: LabelConfig, folder: Path
) -> None:
    rank = workbench.ranks.rank
    part = folder / f"labels.rank{rank}.jsonl"
    done = {json.loads(line)["problem_id"] for line in read_whole_lines(part)}
    labels: dict[str, list[StepLabels]] = {}

    async def strategy(session: Session) -> SearchResult:
        rollouts, result = await collect_rollouts(session, config)
        problem = session.problem
        labels[problem.id] = step_labels(
            problem.id, problem.prompt, session.prompt_ids, rollouts, session.engine.decode
        )
        return result

    journal = Journal(folder / f"labels.journal{rank}.jsonl")
    waiting = [p for p in workbench.ranks.shard(problems) if p.id not in done]
    results = run_searches(
        waiting,
        strategy,
        engine=workbench.engine,
        scorer=None,
        verify=workbench.verifier.verify,
        journal=journal,
        on_batch=progress_printer("labels", len(waiting), rank),
    )
    with part.open("a", encoding="utf-8") as file:
        for result in results:
            row = {
                "problem_id": result.problem.id,
                "usage": asdict(result.usage),
                "rows": [asdict(label) for label in labels.pop(result.problem.id)],
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
    journal.close()


def _merge(problems: list[Problem], folder: Path, record: Any) -> int:
    """labels.jsonl in the problems' order; returns how many problems some rollout solved."""
    parts = sorted(folder.glob("labels.rank*.jsonl"))
    found = {
        row["problem_id"]: row for part in parts for row in map(json.loads, read_whole_lines(part))
    }
    solved = 0
    temporary = folder / "labels.merging"
    with temporary.open("w", encoding="utf-8") as file:
        for problem in problems:
            row = found[problem.id]
            solved += any(label["labels"][-1] == 1.0 for label in row["rows"])
            for label in row["rows"]:
                file.write(json.dumps(label) + "\n")
    total = sum(
        (usage_from_json(found[p.id]["usage"]) for p in problems[1:]),
        usage_from_json(found[problems[0].id]["usage"]),
    )
    record.search(total)
    temporary.replace(folder / "labels.jsonl")
    for path in [*parts, *folder.glob("labels.journal*.jsonl")]:
        path.unlink()
    return solved


def read_labels(path: Path) -> Iterator[StepLabels]:
    """Raises ValueError naming file, line and reason for a bad row."""
    for number, line in enumerate(path.open(encoding="utf-8"), start=1):
        try:
            row = json.loads(line)
            yield StepLabels(
                problem_id=row["problem_id"],
                prompt=row["prompt"],
                prompt_ids=tuple(row["prompt_ids"]),
                completions=tuple(row["completions"]),
                completion_ids=tuple(tuple(step) for step in row["completion_ids"]),
                labels=tuple(map(float, row["labels"])),
                counts=tuple(row["counts"]),
                standard_errors=tuple(row["standard_errors"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: not a row of step labels ({error!r})"
            ) from None
