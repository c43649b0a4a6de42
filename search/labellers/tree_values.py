"""Step labels from search trees. The label of a step is the value that was backed up to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from data.types import StepLabels, Usage
from search.base import SearchResult, Session
from search.labellers.solutions import Labelled
from search.trees.files import iterate_trees
from search.trees.training_rows import step_value_labels


@dataclass(frozen=True, kw_only=True)
class TreeConfig:
    """Labels from the values of search trees."""

    trees: str
    """Folder that the search stage wrote, or a file of trees."""
    min_visits: int = 4
    """Minimum number of visits that a step needs to get a label; at least 1."""

    def __post_init__(self) -> None:
        if self.min_visits < 1:
            raise ValueError(f"min_visits is {self.min_visits}; it must be at least 1")


async def label_tree_q(session: Session, config: TreeConfig) -> Labelled:
    """Label steps with the mean values and visit counts in the tree of a finished search.

    The rows are those of `search.trees.training_rows.step_value_labels`, but the last label of a
    finished solution is the verifier's verdict. A problem without a tree has no rows. The usage is
    that of the search, as this session itself spends nothing.

    Raises ValueError when the file does not exist, and for a row of it that is not a tree.
    """
    tree = trees_by_problem(config.trees).get(session.problem.id)
    if tree is None:
        return Labelled(rows=(), usage=Usage())
    rows = step_value_labels([tree], lambda _: session.prompt_ids, config.min_visits)
    return Labelled(
        rows=tuple(_with_verdict(session, row) for row in rows), usage=tree.usage, end=tree.end
    )


@lru_cache(maxsize=1)
def trees_by_problem(source: str) -> dict[str, SearchResult]:
    """The trees of a folder of the search stage, or of a file, by the problem's id. Raises
    ValueError when there is no such file, and for a row of it that is not a tree."""
    path = Path(source)
    path = path / "trees.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"trees is {source!r}: there is no file {str(path)!r}")
    return {tree.problem.id: tree for tree in iterate_trees(path)}


def _with_verdict(session: Session, row: StepLabels) -> StepLabels:
    if row.completion_ids[-1][-1] not in session.engine.end_token_ids:
        return row
    correct = session.verify("".join(row.completions)).correct
    return replace(
        row,
        labels=(*row.labels[:-1], float(correct)),
        standard_errors=(*row.standard_errors[:-1], 0.0),
    )
