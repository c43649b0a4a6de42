"""PRM800K (Let's Verify Step by Step, 2305.20050; github.com/openai/prm800k): ratings by people.

A row is the walk of one labeller through a problem. Each step has the `completions` that a model
proposed. Each completion has a `rating` of -1 (wrong), 0 (neutral: neither wrong nor useful) or 1.
`chosen_completion` is the index of the completion with which the walk went on. When all completions
were wrong, the labellers of phase 1 could write a `human_completion` and go on with it. In phase 2,
the walk follows a solution that was generated before (`question.pre_generated_steps`). It stops at
the first error and then has ratings of other completions for this step.

The reader follows these rules:

- The walk is one solution. Every completion that is not on the walk is the end of another solution:
  the steps of the walk before it, and then the completion. These earlier steps have no label there,
  because they have their labels in the walk. So each rating is read once.
- The rating 1 is the label 1, and -1 is the label 0. The option `neutral_rating` decides about the
  rating 0. (The paper counts it as correct when it scores solutions. TRL's conversion counts it as
  incorrect.) A human completion is correct, as the description of the data set says, unless it has
  a rating. A rating of null, or one that the labeller flagged as unsure, is no label.
- When the walk ends without a choice (`finish_reason` "found_error" or "give_up"), its last step is
  the first completion. In phase 2, this is the step of the pre-generated solution. A last step
  without completions is ignored. The rest of a pre-generated solution, which has no ratings, is
  left out. A problem that was reported as broken ("bad_problem") gives no solution. Rows for
  quality control and screening, in which many labellers rated one solution, are read like all
  other rows.
- The steps are published without the line breaks between them (the paper has them). The reader
  ends every step but the last with "\\n". A step with "# Answer" is the end of a solution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.formats.base import (
    NEUTRAL,
    FormatOptions,
    as_answer,
    as_list,
    as_mapping,
    as_text,
    labelled,
    shown,
    with_delimiter,
)
from data.sources import Row
from data.types import LabelledSolution

PRM800K_DELIMITER = "\n"
FINISH_REASONS = ("solution", "found_error", "give_up", "bad_problem")
ANSWER_MARK = "# Answer"


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The completions of one step, with the human completion last. `chosen` is the index of the
    completion with which the walk went on."""

    texts: tuple[str, ...]
    labels: tuple[float | None, ...]
    chosen: int | None


def prm800k_row(row: Row, options: FormatOptions) -> list[LabelledSolution]:
    """The walk as one solution, then the solutions of the other completions, in order. A solution
    without a label is left out. Raises ValueError for a row that is not such a walk."""
    question = as_mapping(row.columns.get("question"), "question")
    problem = as_text(question.get("problem"), "question.problem")
    answer = as_answer(question.get("ground_truth_answer"), "question.ground_truth_answer")
    label = as_mapping(row.columns.get("label"), "label")
    reason = label.get("finish_reason")
    if not isinstance(reason, str) or reason not in FINISH_REASONS:
        raise ValueError(
            f"label.finish_reason is {shown(reason)}; allowed: {', '.join(FINISH_REASONS)}"
        )
    steps = [
        _step(as_mapping(step, f"step {number}"), f"step {number}", NEUTRAL[options.neutral_rating])
        for number, step in enumerate(as_list(label.get("steps"), "label.steps"), start=1)
    ]
    _check_walk(steps, question.get("pre_generated_steps"))
    if reason == "bad_problem":
        return []
    delimiter = PRM800K_DELIMITER if options.delimiter is None else options.delimiter
    return [
        labelled(
            problem,
            with_delimiter(texts, delimiter),
            labels,
            answer=answer,
            finished=ANSWER_MARK in texts[-1],
        )
        for texts, labels in _paths(steps)
        if any(value is not None for value in labels)
    ]


def _step(step: Mapping[str, object], name: str, neutral: float | None) -> _Step:
    texts: list[str] = []
    labels: list[float | None] = []
    completions = step.get("completions")
    for i, item in enumerate([] if completions is None else as_list(completions, name)):
        where = f"completion {i} of {name}"
        completion = as_mapping(item, where)
        if "rating" not in completion:
            raise ValueError(f"rating of {where} is absent")
        texts.append(as_text(completion.get("text"), f"text of {where}"))
        labels.append(_label(completion, where, neutral))
    chosen = step.get("chosen_completion")
    if chosen is not None and (
        not isinstance(chosen, int) or isinstance(chosen, bool) or not 0 <= chosen < len(texts)
    ):
        raise ValueError(
            f"chosen_completion of {name} is {shown(chosen)}; it has {len(texts)} completions"
        )
    if step.get("human_completion") is not None:
        human = as_mapping(step.get("human_completion"), f"human_completion of {name}")
        where = f"human_completion of {name}"
        texts.append(as_text(human.get("text"), f"text of {where}"))
        labels.append(1.0 if human.get("rating") is None else _label(human, where, neutral))
        chosen = len(texts) - 1 if chosen is None else chosen
    return _Step(texts=tuple(texts), labels=tuple(labels), chosen=chosen)


def _label(completion: Mapping[str, object], where: str, neutral: float | None) -> float | None:
    rating, flagged = completion.get("rating"), completion.get("flagged")
    if not (flagged is None or isinstance(flagged, bool)):
        raise ValueError(f"flagged of {where} is {shown(flagged)}; it must be true or false")
    if rating is None:
        return None
    if isinstance(rating, bool) or not isinstance(rating, (int, float)) or rating not in (-1, 0, 1):
        raise ValueError(f"rating of {where} is {shown(rating)}; allowed: -1, 0, 1")
    return None if flagged else {-1: 0.0, 0: neutral, 1: 1.0}[int(rating)]


def _check_walk(steps: Sequence[_Step], pre_generated: object) -> None:
    for number, step in enumerate(steps[:-1], start=1):
        if step.chosen is None:
            raise ValueError(f"step {number} has no chosen completion, and a step follows it")
    if pre_generated is None:
        return
    texts = as_list(pre_generated, "question.pre_generated_steps")
    for number, step in enumerate(steps, start=1):
        if step.texts and (number > len(texts) or step.texts[0] != texts[number - 1]):
            raise ValueError(f"step {number} is not step {number} of question.pre_generated_steps")


def _paths(steps: Sequence[_Step]) -> list[tuple[list[str], list[float | None]]]:
    walk: list[str] = []
    walk_labels: list[float | None] = []
    others: list[tuple[list[str], list[float | None]]] = []
    for step in steps:
        if not step.texts:
            break
        chosen = step.chosen or 0
        for i, (text, label) in enumerate(zip(step.texts, step.labels, strict=True)):
            if i != chosen:
                others.append(([*walk, text], [*[None] * len(walk), label]))
        walk.append(step.texts[chosen])
        walk_labels.append(step.labels[chosen])
    return [(walk, walk_labels), *others]
