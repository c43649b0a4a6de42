"""Math-Shepherd (2312.08935; peiyi9979/Math-Shepherd): hard estimates by rollouts, as tagged text.

`input` is the question and the solution in one text, a tag " ки" after every step; `label` is the
same text with "+" (some rollout from here was right) or "-" in the place of each "ки". The solution
begins with its own "Step 1:".

How it is read: "ки" and the space before it go, and nothing else: the blanks after a tag, a line
break, end the step they follow. "+" is the label 1 and "-" is 0. They say whether any of several
rollouts was right, not which share, so no count stands behind them. Rows are whole solutions; the
gold answer is not in them.

TRL's conversion of the same data also takes the first "?" for the end of the question and leaves
out a label inside a question; such rows are refused here, for the cut would be a guess.
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
    """One solution. Raises ValueError for text without tags or not told from the question, for
    text after the last tag, for an empty step, and where `label` is another text than `input`."""
    text = as_text(row.columns.get("input"), "input")
    labels = _labels(text, as_text(row.columns.get("label"), "label"))
    head, *parts = text.split(TAG)
    starts = list(FIRST_STEP.finditer(head))
    if len(starts) != 1:
        raise ValueError(
            f"input has {len(starts)} times 'Step 1:' before its first tag; it must be once, where "
            "the question ends"
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
    """What stands in `label` where `text` has its tags; all else must be the same."""
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
