"""Math-Shepherd (2312.08935; peiyi9979/Math-Shepherd): hard labels by rollouts, as tagged text.

`input` is the question and the solution in one text, with a tag " ки" after every step. `label` is
the same text with "+" (at least one rollout from here was right) or "-" in place of each "ки". The
solution begins with "Step 1:".

The reader removes "ки" and the space before it, and nothing else. The blanks after a tag (a line
break) belong to the end of the step before it. "+" is the label 1, and "-" is the label 0. The
labels do not say how many rollouts were right, so their counts are 0. Each row is a whole solution.
Rows do not contain the gold answer.

TRL's conversion of the same data also takes the first "?" as the end of the question, and it leaves
out a label inside a question. This reader refuses such rows, because it would have to guess where
the question ends.
"""

from __future__ import annotations

import re

from data.formats.base import FormatOptions, as_text, labelled, shown
from data.sources import Row
from data.types import LabelledSolution

TAG = "ки"
FIRST_STEP = re.compile(r"[Ss]tep 1:")
LABELS = {"+": 1.0, "-": 0.0}


def math_shepherd_row(row: Row, options: FormatOptions) -> list[LabelledSolution]:
    """The one solution of a row.

    Raises ValueError for text without tags, for text without exactly one end of the question, for
    text after the last tag, for an empty step, and when `label` is another text than `input`.
    """
    text = as_text(row.columns.get("input"), "input")
    labels = _labels(text, as_text(row.columns.get("label"), "label"))
    head, *parts = text.split(TAG)
    starts = list(FIRST_STEP.finditer(head))
    if len(starts) != 1:
        raise ValueError(
            f"input has 'Step 1:' {len(starts)} times before its first tag; it must have it once, "
            "at the end of the question"
        )
    question = as_text(head[: starts[0].start()], "the question in input")
    if parts[-1].strip():
        raise ValueError(f"input has text without a label after the last tag: {shown(parts[-1])}")
    bodies = [head[starts[0].start() :], *(part.lstrip() for part in parts[:-1])]
    endings = [part[: len(part) - len(part.lstrip())] for part in parts]
    steps: list[str] = []
    for number, (body, ending) in enumerate(zip(bodies, endings, strict=True), start=1):
        if not body.strip():
            raise ValueError(f"step {number} is empty: two tags follow each other")
        steps.append(body.removesuffix(" ") + ending)
    return [labelled(question, steps, labels, finished=True)]


def _labels(text: str, label: str) -> list[float]:
    """The labels in `label` at the places of the tags in `text`. Raises ValueError when the rest of
    the two texts differs."""
    parts = text.split(TAG)
    if len(parts) == 1:
        raise ValueError(f"input has no step tag {TAG!r}")
    labels: list[float] = []
    at = 0
    for number, part in enumerate(parts, start=1):
        if not label.startswith(part, at):
            raise ValueError(f"label is not the text of input before tag {number}")
        at += len(part)
        if number == len(parts):
            break
        sign = label[at : at + 1]
        if sign not in LABELS:
            raise ValueError(f"label has {shown(sign)} for step {number}; it must be + or -")
        labels.append(LABELS[sign])
        at += 1
    if at != len(label):
        raise ValueError(f"label goes on after the end of input: {shown(label[at:])}")
    return labels
