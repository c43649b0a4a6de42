"""The label stage: step labels of a policy's own solutions, by any labeller, as rows on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.types import Problem, StepLabels, Usage
from search.base import SearchResult, Session
from search.batcher import Journal, read_whole_lines, run_searches
from search.label import LabelSettings, TreeConfig, bind_labeller, labeller_entry
from search.rollouts import Labelled
from search.tree import usage_from_json
from trainer.checks import check_policy
from trainer.runtime import RuntimeConfig
from trainer.searching import Workbench, progress_printer
from trainer.stage import StageRecord, run_stage


@dataclass(frozen=True, kw_only=True)
class LabelStageConfig:
    """Label the first `num_problems` of `<data>/<split>.jsonl`, after `skip` ones. `method` is one
    of `search.label.LABELLERS`; its own keys belong to the recipe too."""

    policy: str
    data: str
    method: str = "monte_carlo"
    split: str = "train"
    skip: int = 0
    num_problems: int = 2000
    verifier: str = "countdown"

    def __post_init__(self) -> None:
        labeller_entry(self.method)


def run_label(
    runtime: RuntimeConfig, stage: LabelStageConfig, settings: LabelSettings, config: Any
) -> None:
    """Write labels.jsonl (TRL's stepwise-supervision columns, token ids, counts and errors) and
    costs.jsonl (what each problem's labels cost and how they ended). `config` is the labeller's.

    Raises ValueError when no problem has a label.
    """
    from accelerate import Accelerator

    inputs: dict[str, str | None] = {"policy": stage.policy, "data": stage.data}
    if isinstance(config, TreeConfig):
        inputs["trees"] = config.trees
    check = partial(check_policy, stage.policy)
    with run_stage("label", runtime, [stage, settings, config], inputs, check) as record:
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
        _label_shard(workbench, problems, settings, config, folder)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _merge(problems, folder, record)
        accelerator.wait_for_everyone()


def _label_shard(
    workbench: Workbench,
    problems: list[Problem],
    settings: LabelSettings,
    config: Any,
    folder: Path,
) -> None:
    rank = workbench.ranks.rank
    part = folder / f"labels.rank{rank}.jsonl"
    done = {json.loads(line)["problem_id"] for line in read_whole_lines(part)}
    label = bind_labeller(config)
    found: dict[str, Labelled] = {}

    async def strategy(session: Session) -> SearchResult:
        labelled = found[session.problem.id] = await label(session)
        return SearchResult(
            problem=session.problem,
            strategy="label",
            nodes=(),
            snapshots=(),
            usage=session.usage,
            end=labelled.end,
        )

    journal = Journal(folder / f"labels.journal{rank}.jsonl")
    waiting = [p for p in workbench.ranks.shard(problems) if p.id not in done]
    results = run_searches(
        waiting,
        strategy,
        engine=workbench.engine,
        scorer=None,
        verify=workbench.verifier.verify,
        settings=settings.of_a_search(),
        journal=journal,
        on_batch=progress_printer("labels", len(waiting), rank),
    )
    with part.open("a", encoding="utf-8") as file:
        for result in results:
            # A problem whose prompt allows no rollout has no labels.
            labelled = found.pop(result.problem.id, Labelled(rows=(), usage=result.usage))
            row = {
                "problem_id": result.problem.id,
                "end": result.end.value,
                "cost": asdict(labelled.usage),
                "usage": asdict(result.usage),
                "rows": [asdict(label) for label in labelled.rows],
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
    journal.close()


def _merge(problems: list[Problem], folder: Path, record: StageRecord) -> None:
    """labels.jsonl and costs.jsonl in the problems' order, and what the record says of them."""
    parts = sorted(folder.glob("labels.rank*.jsonl"))
    found = {
        row["problem_id"]: row for part in parts for row in map(json.loads, read_whole_lines(part))
    }
    solved = 0
    steps: Counter[str] = Counter()
    spent = cost = Usage()
    temporary = folder / "labels.merging"
    with temporary.open("w", encoding="utf-8") as file, (folder / "costs.jsonl").open("w") as costs:
        for problem in problems:
            row = found[problem.id]
            solved += any(label["labels"][-1] == 1.0 for label in row["rows"])
            for label in row["rows"]:
                file.write(json.dumps(label) + "\n")
                steps["labels"] += len(label["labels"])
                steps["rows"] += 1
            costs.write(json.dumps({k: row[k] for k in ("problem_id", "end", "cost")}) + "\n")
            steps[f"ended_{row['end']}"] += 1
            spent += usage_from_json(row["usage"])
            cost += usage_from_json(row["cost"])
    if not steps["rows"]:
        raise ValueError(f"none of the {len(problems)} problems has a label")
    record.search(spent)
    record.metrics |= {"problems": len(problems), "solved": solved, **steps}
    record.metrics["generated_tokens"] = cost.policy.generated_tokens
    temporary.replace(folder / "labels.jsonl")
    for path in [*parts, *folder.glob("labels.journal*.jsonl")]:
        path.unlink()


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
