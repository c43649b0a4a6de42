"""Trees of OmegaPRM (2406.06592) as openreasoner/openr saves them: Monte Carlo values of prefixes.

`reasoning_steps` is the root of a tree. A node has the `text` that it adds (the question at the
root), its `mc_value`, which is the share of right rollouts from there, and its `children`.

The reader follows these rules:

- Every path from the root to a leaf is a solution. When several paths share a node, only the first
  path has its label, so each value is read once. A value of null is no label.
- The file does not contain the separator between steps. It was "\\n\\n", so the reader ends every
  step but the last with it. The file does not say how many rollouts a value has, so counts are 0.
- A leaf with the value 1 is a whole rollout that was right. No rollout from any other leaf was
  right, so it is not known whether that leaf is the end of a solution.
"""

from __future__ import annotations

from collections.abc import Mapping

from data.formats.base import (
    FormatOptions,
    as_answer,
    as_label,
    as_list,
    as_mapping,
    as_text,
    labelled,
    shown,
    with_delimiter,
)
from data.sources import Row
from data.types import LabelledSolution

OMEGAPRM_DELIMITER = "\n\n"
_Path = tuple[tuple[str, ...], tuple[float | None, ...]]  # texts and labels above a node


def omegaprm_row(row: Row, options: FormatOptions) -> list[LabelledSolution]:
    """One solution per leaf, in the order of the tree. A leaf whose path has no label gives no
    solution. Raises ValueError for a row that is not such a tree."""
    question = as_text(row.columns.get("question"), "question")
    answer = as_answer(row.columns.get("final_answer"), "final_answer")
    root = as_mapping(row.columns.get("reasoning_steps"), "reasoning_steps")
    text = as_text(root.get("text"), "text of the root")
    if text.strip() != question.strip():
        raise ValueError(f"text of the root is {shown(text)}; it must be the question")
    delimiter = OMEGAPRM_DELIMITER if options.delimiter is None else options.delimiter
    solutions: list[LabelledSolution] = []
    # A stack instead of recursion, because the tree of a row may be very deep.
    waiting: list[tuple[object, _Path]] = [
        (child, ((), ())) for child in reversed(_children(root, "the root"))
    ]
    while waiting:
        item, (texts, labels) = waiting.pop()
        name = f"a node of depth {len(texts) + 1}"
        node = as_mapping(item, name)
        texts = (*texts, as_text(node.get("text"), f"text of {name}"))
        if "mc_value" not in node:
            raise ValueError(f"mc_value of {name} is absent")
        value = node.get("mc_value")
        value = None if value is None else as_label(value, f"mc_value of {name}")
        labels = (*labels, value)
        children = _children(node, name)
        unlabelled: tuple[None, ...] = (None,) * len(labels)
        waiting += [(child, (texts, unlabelled)) for child in reversed(children[1:])]
        waiting += [(child, (texts, labels)) for child in children[:1]]
        if not children and any(label is not None for label in labels):
            steps = with_delimiter(texts, delimiter)
            solutions.append(
                labelled(question, steps, labels, answer=answer, finished=value == 1.0)
            )
    return solutions


def _children(node: Mapping[str, object], name: str) -> list[object]:
    children = node.get("children")
    return [] if children is None else as_list(children, f"children of {name}")
