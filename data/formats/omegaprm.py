"""Trees of OmegaPRM (2406.06592) as openreasoner/openr saves them: Monte Carlo values of prefixes.

`reasoning_steps` is the root: a node has the `text` it adds (the root: the question), `mc_value`,
the share of the rollouts from there that were right, and `children`.

How it is read:

- Every path from the root to a leaf is a solution. A node that several paths share has its label in
  the first of them alone, so each value is read once. A value of null is no label.
- Texts were saved without what stood between them: "\\n\\n" there, which ends all steps but the
  last. How many rollouts are behind a value is not saved, so counts are 0.
- A leaf of value 1 is a whole rollout that was right. Other leaves are prefixes from which no
  rollout was right, so they are not known to be the end of a solution.
"""

from __future__ import annotations

from collections.abc import Mapping

from data.formats.base import (
    FormatOptions,
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
    """A solution a leaf, in the tree's order; none without a label. Raises ValueError."""
    question = as_text(row.columns.get("question"), "question")
    answer = row.columns.get("final_answer")
    answer = "" if answer is None else as_text(answer, "final_answer", blank=True)
    root = as_mapping(row.columns.get("reasoning_steps"), "reasoning_steps")
    text = as_text(root.get("text"), "text of the root")
    if text.strip() != question.strip():
        raise ValueError(f"text of the root is {shown(text)}; it must be the question")
    delimiter = OMEGAPRM_DELIMITER if options.delimiter is None else options.delimiter
    solutions: list[LabelledSolution] = []
    # A stack and not recursion: a tree of rows may be as deep as its author likes.
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
