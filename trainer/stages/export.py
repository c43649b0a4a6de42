"""The export stage turns search trees into training data for other trainers, as JSON lines or
Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.token_text import TokenText
from rewards.models.folders import load_tokenizer
from rewards.verifiers.by_name import VERIFIERS, check_verifier
from search.base import SearchResult
from search.trees.files import iterate_trees, node_rows
from search.trees.preference_pairs import PairRules, pairs_of_solutions, pairs_of_steps
from search.trees.training_rows import (
    best_paths,
    by_solve_rate,
    step_preferences,
    step_value_labels,
    visit_weighted_paths,
)
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import run_stage

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which rows are made from search trees."""

    trees: str
    """Folder of the search stage, or a file of trees."""
    kinds: tuple[str, ...] = ("best_paths",)
    """Kinds of rows: keys of EXPORTS in trainer/stages/export.py."""
    format: str = "jsonl"
    """File format: jsonl or parquet."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    policy: str | None = None
    """Folder of the tokenizer that made the trees; needed for labels and pairs."""
    min_visits: int = 4
    """Minimum number of visits of a step in a label, preference or pair."""
    min_gap: float = 0.3
    """Minimum difference between the two values of a preference or pair."""
    per_side: int = 2
    """Maximum of chosen, and of rejected, steps after one prefix that form pairs."""
    min_rate: float = 0.05
    """Lowest solve rate of an exported problem, in [0, 1]."""
    max_rate: float = 0.95
    """Highest solve rate of an exported problem, in [0, 1]."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in EXPORTS:
                raise ValueError(f"kinds holds {kind!r}; allowed: {', '.join(EXPORTS)}")
        if self.format not in ("jsonl", "parquet"):
            raise ValueError(f"format is {self.format!r}; allowed: jsonl, parquet")
        self.rules()
        if not 0 <= self.min_rate <= self.max_rate <= 1:
            raise ValueError(
                f"min_rate is {self.min_rate} and max_rate is {self.max_rate}; they must be in "
                "[0, 1], in this order"
            )
        for kind in NEED_POLICY:
            if kind in self.kinds and self.policy is None:
                raise ValueError(
                    f"kinds holds {kind!r}, which needs policy: the tokenizer's folder"
                )
        check_verifier(self.verifier)

    def rules(self) -> PairRules:
        return PairRules(per_side=self.per_side, min_gap=self.min_gap, min_visits=self.min_visits)


def _best_paths(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    return map(asdict, best_paths(results, VERIFIERS[config.verifier]().verify))


def _visit_weighted(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    return map(asdict, visit_weighted_paths(results))


def _preferences(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    return map(
        asdict, step_preferences(results, min_gap=config.min_gap, min_visits=config.min_visits)
    )


def _encoder(config: ExportConfig) -> Callable[[str], tuple[int, ...]]:
    return TokenText(load_tokenizer(str(config.policy))).encode_prompt


def _labels(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    return map(asdict, step_value_labels(results, _encoder(config), config.min_visits))


def _step_pairs(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    verify = VERIFIERS[config.verifier]().verify
    return map(asdict, pairs_of_steps(results, _encoder(config), verify, config.rules()))


def _solution_pairs(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    verify = VERIFIERS[config.verifier]().verify
    return map(asdict, pairs_of_solutions(results, _encoder(config), verify, config.rules()))


def _problems(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    verify = VERIFIERS[config.verifier]().verify
    for row in by_solve_rate(results, verify, low=config.min_rate, high=config.max_rate):
        yield {**asdict(row.problem), "solve_rate": row.solve_rate, "solutions": row.solutions}


def _nodes(results: Iterable[SearchResult], config: ExportConfig) -> Rows:
    return (row for result in results for row in node_rows(result))


# kind -> rows: SFT rows, TRL preference rows, StepLabels rows, StepPair rows (TRL preference rows
# too), problems, a row a node
EXPORTS: dict[str, Callable[[Iterable[SearchResult], ExportConfig], Rows]] = {
    "best_paths": _best_paths,
    "visit_weighted_paths": _visit_weighted,
    "step_preferences": _preferences,
    "step_labels": _labels,
    "step_pairs": _step_pairs,
    "solution_pairs": _solution_pairs,
    "problems_by_solve_rate": _problems,
    "nodes": _nodes,
}
NEED_POLICY = ("step_labels", "step_pairs", "solution_pairs")


def run_export(runtime: RuntimeConfig, config: ExportConfig) -> None:
    """Write `<kind>.jsonl` or `<kind>.parquet`. Raises ValueError naming file and line for a tree
    of another format or version."""
    source = Path(config.trees)
    path = source / "trees.jsonl" if source.is_dir() else source
    if not path.is_file():
        raise ValueError(f"trees is {config.trees!r}: there is no file {str(path)!r}")
    with run_stage("export", runtime, [config], {"trees": config.trees}) as record:
        if not is_main_process():
            return
        for kind in config.kinds:
            rows = EXPORTS[kind](iterate_trees(path), config)
            target = Path(runtime.output_dir) / f"{kind}.{config.format}"
            count = _write(rows, target, config.format)
            record.metrics[kind] = count
            print(f"{kind}: {count} rows in {target}")


def _write(rows: Rows, target: Path, format: str) -> int:
    if format == "jsonl":
        count = 0
        with target.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
                count += 1
        return count
    from datasets import Dataset

    content = list(rows)
    Dataset.from_list(content).to_parquet(str(target))
    return len(content)
