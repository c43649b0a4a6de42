"""Labels problems on several ranks. Each rank labels its share, and rank 0 merges the labels in
order."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.row_files import read_whole_lines
from data.types import Problem, ServedTokens, Usage, usage_from_json
from rewards.verifiers.tally import TALLY
from search.base import SearchResult, Session
from search.batcher import run_searches
from search.journal import Journal
from search.labellers.by_name import LabelSettings, bind_labeller
from search.labellers.solutions import Labelled
from trainer.runtime.stage import StageRecord
from trainer.searching.workbench import Workbench, showing


def label_shard(
    workbench: Workbench,
    problems: list[Problem],
    settings: LabelSettings,
    config: Any,
    folder: Path,
) -> None:
    rank = workbench.ranks.rank
    part = folder / f"labels.rank{rank}.jsonl"
    finished = [json.loads(line) for line in read_whole_lines(part)]
    for row in finished:  # by an interrupted attempt
        TALLY.add(row.get("verdicts", {}))
    done = {row["problem_id"] for row in finished}
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
    with (
        workbench.ranks.progress("labels", len(waiting)) as progress,
        part.open("a", encoding="utf-8") as file,
    ):
        results = run_searches(
            waiting,
            strategy,
            engine=workbench.engine,
            scorer=None,
            verify=workbench.verifier.verify,
            settings=settings.of_a_search(),
            journal=journal,
            on_progress=showing(progress),
        )
        for result in results:
            # If the prompt leaves no room for a rollout, the problem has no labels.
            labelled = found.pop(result.problem.id, Labelled(rows=(), usage=result.usage))
            row = {
                "problem_id": result.problem.id,
                "end": result.end.value,
                "cost": asdict(labelled.usage),
                "usage": asdict(result.usage),
                "rows": [asdict(label) for label in labelled.rows],
            }
            if result.served is not None:
                row["served"] = asdict(result.served)
            if result.verdicts:
                row["verdicts"] = dict(result.verdicts)
            file.write(json.dumps(row) + "\n")
            file.flush()
    journal.close()


def merge_shards(problems: list[Problem], folder: Path, record: StageRecord) -> None:
    """Write labels.jsonl and costs.jsonl in the order of the problems, and fill the record's
    metrics."""
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
    served = [ServedTokens(**found[p.id]["served"]) for p in problems if "served" in found[p.id]]
    record.search(spent, sum(served, ServedTokens()) if served else None)
    record.metrics |= {"problems": len(problems), "solved": solved, **steps}
    record.metrics["generated_tokens"] = cost.policy.generated_tokens
    temporary.replace(folder / "labels.jsonl")
    for path in [*parts, *folder.glob("labels.journal*.jsonl")]:
        path.unlink()
