"""Verdicts of the finished solutions of search trees, to train an outcome reward model that chooses
among such solutions: of each problem as many right as wrong ones.

The wrong solutions are those that a search found and could have answered with.
"""

from __future__ import annotations

from dataclasses import dataclass

from data.types import StepLabels, Usage
from search.base import SearchResult, Session, solution_ids, solution_text
from search.labellers.solutions import Labelled
from search.labellers.tree_values import trees_by_problem
from search.trees.training_rows import finished_solutions


@dataclass(frozen=True, kw_only=True)
class TreeSolutionsConfig:
    """Verdicts of the finished solutions of search trees."""

    trees: str
    """Folder that the search stage wrote, or a file of trees."""
    per_side: int = 8
    """Maximum number of right solutions per problem, and of wrong ones."""
    balanced: bool = True
    """As many right as wrong solutions of each problem; false: also problems with one side only."""

    def __post_init__(self) -> None:
        if self.per_side < 1:
            raise ValueError(f"per_side is {self.per_side}; it must be at least 1")


async def label_tree_solutions(session: Session, config: TreeSolutionsConfig) -> Labelled:
    """One row per solution, with the verdict as its only label.

    The first distinct solutions of each side are taken in the order in which the search found them.
    The reward model has no say in that: if it chose the wrong solutions that it likes best, a judge
    would learn that what it likes is wrong. A problem with one side only has no rows, unless
    `balanced` is false. The usage is that of the search, as this session itself spends nothing.

    Raises ValueError when the file does not exist, and for a row of it that is not a tree.
    """
    tree = trees_by_problem(config.trees).get(session.problem.id)
    if tree is None:
        return Labelled(rows=(), usage=Usage())
    right, wrong = _sides(session, tree)
    size = min(config.per_side, len(right), len(wrong)) if config.balanced else config.per_side
    return Labelled(rows=(*right[:size], *wrong[:size]), usage=tree.usage, end=tree.end)


def _sides(session: Session, tree: SearchResult) -> tuple[list[StepLabels], list[StepLabels]]:
    """The distinct solutions that are right and those that are wrong, in the order of the tree."""
    rows: dict[tuple[int, ...], StepLabels] = {}
    for node in finished_solutions(tree):
        ids = solution_ids(tree.nodes, node.id)
        if ids in rows:
            continue
        text = solution_text(tree.nodes, node.id)
        rows[ids] = StepLabels(
            problem_id=session.problem.id,
            prompt=session.problem.prompt,
            prompt_ids=session.prompt_ids,
            completions=(text,),
            completion_ids=(ids,),
            labels=(float(session.verify(text).correct),),
            counts=(1,),
            standard_errors=(0.0,),
        )
    found = list(rows.values())
    return [r for r in found if r.labels[0] == 1], [r for r in found if r.labels[0] == 0]
