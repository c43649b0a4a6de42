"""Readers of published step labels: by hand, on real rows, and rows that must be refused."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data.formats.base import FormatOptions, problem_id_of, with_delimiter
from data.formats.math_shepherd import math_shepherd_row
from data.formats.omegaprm import omegaprm_row
from data.formats.prm800k import prm800k_row
from data.formats.reading import FORMATS, detect_format, format_of_source, read_labelled
from data.formats.stepwise import labels_columns, labels_row, trl_columns, trl_row
from data.sources import Row
from data.types import LabelledSolution, SteppedSolution

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"
needs_data = pytest.mark.usefixtures("published_data")
DEFAULT = FormatOptions()


def rated(*pairs: tuple[str, int | None], chosen: int | None, human: str | None = None) -> Any:
    return {
        "completions": [{"text": t, "rating": r, "flagged": None} for t, r in pairs],
        "human_completion": human
        and {"text": human, "rating": None, "source": "human", "flagged": False},
        "chosen_completion": chosen,
    }


PRM800K: dict[str, Any] = {
    "question": {"problem": "What is 2+2?", "ground_truth_answer": "4"},
    "label": {
        "steps": [
            rated(("We add.", 1), ("We subtract.", -1), chosen=0),
            rated(("It is 5.", -1), ("It is 6.", -1), chosen=None, human="It is 4."),
            rated(("Fine.", 0), ("Done.\n\n# Answer\n\n4", 1), chosen=1),
        ],
        "finish_reason": "solution",
    },
}
SHEPHERD = {
    "input": "What is 2+2? Step 1: 2+2=4. ки\nStep 2: Twice is 9. The answer is: 9 ки",
    "label": "What is 2+2? Step 1: 2+2=4. +\nStep 2: Twice is 9. The answer is: 9 -",
    "task": "GSM8K",
}
TREE: dict[str, Any] = {
    "question": "What is 2+2?",
    "final_answer": "4",
    "reasoning_steps": {
        "text": "What is 2+2?",
        "mc_value": 0.75,
        "children": [
            {
                "text": "We add.",
                "mc_value": 0.5,
                "children": [
                    {"text": "It is 4.", "mc_value": 1.0, "children": []},
                    {"text": "It is 5.", "mc_value": 0.0, "children": []},
                ],
            },
            {"text": "4, clearly.", "mc_value": 1, "children": []},
        ],
    },
}
STEPWISE = {
    "prompt": "What is 2+2?\n", "completions": ["We add.", "It is 5."], "labels": [True, False]
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "prm800k": PRM800K,
    "math_shepherd": SHEPHERD,
    "omegaprm": TREE,
    "trl": STEPWISE,
    "labels": {**STEPWISE, "labels": [0.25, None], "counts": [8, 0], "problem_id": "p"},
}


def row(columns: dict[str, Any]) -> Row:
    return Row(location="here", columns=columns)


def changed(columns: dict[str, Any], path: tuple[str | int, ...], value: Any) -> Row:
    columns = copy.deepcopy(columns)
    at: Any = columns
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return row(columns)


def brief(solutions: list[LabelledSolution]) -> list[tuple[str, tuple[float | None, ...]]]:
    return [("|".join(s.solution.steps), s.labels) for s in solutions]


def test_prm800k_by_hand() -> None:
    solutions = prm800k_row(row(PRM800K), DEFAULT)
    assert brief(solutions) == [
        ("We add.\n|It is 4.\n|Done.\n\n# Answer\n\n4", (1.0, 1.0, 1.0)),
        ("We subtract.", (0.0,)),
        ("We add.\n|It is 5.", (None, 0.0)),
        ("We add.\n|It is 6.", (None, 0.0)),
        ("We add.\n|It is 4.\n|Fine.", (None, None, 1.0)),
    ]
    assert [s.finished for s in solutions] == [True, False, False, False, False]
    assert {s.answer for s in solutions} == {"4"}
    assert {s.problem_id for s in solutions} == {problem_id_of("what is  2+2?")}
    assert solutions[0].solution.prompt == "What is 2+2?" and solutions[0].counts == (0, 0, 0)
    # A neutral rating as the options say; without a label there is nothing to learn from.
    unlabelled = prm800k_row(row(PRM800K), FormatOptions(neutral_rating="unlabelled"))
    assert brief(unlabelled) == brief(solutions)[:4]
    wrong = prm800k_row(row(PRM800K), FormatOptions(neutral_rating="incorrect", delimiter=""))
    assert brief(wrong)[4] == ("We add.|It is 4.|Fine.", (None, None, 0.0))


def test_prm800k_walks_that_end_without_a_choice() -> None:
    steps = [rated(("We add.", 1), chosen=0), rated(("It is 5.", -1), ("It is 4.", 1), chosen=None)]
    found = changed(PRM800K, ("label",), {"steps": steps, "finish_reason": "found_error"})
    assert brief(prm800k_row(found, DEFAULT)) == [
        ("We add.\n|It is 5.", (1.0, 0.0)),
        ("We add.\n|It is 4.", (None, 1.0)),
    ]
    nothing = {"completions": None, "human_completion": None, "chosen_completion": None}
    gave_up = {"steps": [steps[0], nothing], "finish_reason": "give_up"}
    assert brief(prm800k_row(changed(PRM800K, ("label",), gave_up), DEFAULT)) == [
        ("We add.", (1.0,))
    ]
    broken = changed(PRM800K, ("label", "finish_reason"), "bad_problem")
    assert prm800k_row(broken, DEFAULT) == []
    at = ("label", "steps", 0, "completions", 0)
    for path, value in (((*at, "flagged"), True), ((*at, "rating"), None)):
        unsure = prm800k_row(changed(PRM800K, path, value), DEFAULT)
        assert unsure[0].labels == (None, 1.0, 1.0)


def test_math_shepherd_by_hand() -> None:
    [solution] = math_shepherd_row(row(SHEPHERD), DEFAULT)
    assert solution.solution.prompt == "What is 2+2? "
    assert solution.solution.steps == (
        "Step 1: 2+2=4.\n", "Step 2: Twice is 9. The answer is: 9"
    )  # fmt: skip
    assert solution.labels == (1.0, 0.0) and solution.counts == (0, 0)
    assert solution.finished and solution.answer == ""


def test_omegaprm_by_hand() -> None:
    solutions = omegaprm_row(row(TREE), DEFAULT)
    assert brief(solutions) == [
        ("We add.\n\n|It is 4.", (0.5, 1.0)),
        ("We add.\n\n|It is 5.", (None, 0.0)),
        ("4, clearly.", (1.0,)),
    ]
    assert [s.finished for s in solutions] == [True, False, True]
    assert solutions[0].answer == "4"
    unknown = changed(TREE, ("reasoning_steps", "children", 0, "mc_value"), None)
    assert omegaprm_row(unknown, DEFAULT)[0].labels == (None, 1.0)


def test_stepwise_rows_by_hand() -> None:
    [solution] = trl_row(row(STEPWISE), DEFAULT)
    assert solution.solution.steps == ("We add.\n", "It is 5.") and solution.labels == (1.0, 0.0)
    soft = trl_row(row({**STEPWISE, "labels": [0.25, 1]}), FormatOptions(delimiter=" "))
    assert brief(soft) == [("We add. |It is 5.", (0.25, 1.0))]
    [ours] = labels_row(row(ROWS["labels"]), DEFAULT)
    assert brief([ours]) == [("We add.|It is 5.", (0.25, None))]
    assert (ours.problem_id, ours.counts, ours.finished) == ("p", (8, 0), False)
    assert with_delimiter(("a\n", "b", "c"), "\n") == ("a\n", "b\n", "c")


def test_written_rows_are_read_back() -> None:
    solution = LabelledSolution(
        problem_id="p", solution=SteppedSolution(prompt="Q\n", steps=("a\n", "b ", "c", "")),
        labels=(None, 0.5, 0.25, None), counts=(0, 8, 4, 0), answer="3", finished=True,
    )  # fmt: skip
    columns = json.loads(json.dumps(labels_columns(solution)))
    assert labels_row(row(columns), DEFAULT) == [solution]
    assert trl_columns(solution) == {
        "prompt": "Q\n", "completions": ["a\nb ", "c"], "labels": [True, False]
    }  # fmt: skip
    assert trl_columns(solution, 0.25)["labels"] == [True, True]
    assert detect_format(columns) == "labels"
    assert detect_format(trl_columns(solution)) == "trl"
    with pytest.raises(ValueError, match=r"threshold is 0; allowed: above 0"):
        trl_columns(solution, 0)


STEP = ("label", "steps", 1)
NODE = ("reasoning_steps", "children", 0)
BAD: list[tuple[str, tuple[str | int, ...], Any, str]] = [
    ("prm800k", ("question",), None, "question is absent"),
    ("prm800k", ("question", "problem"), " ", "question.problem is empty"),
    ("prm800k", ("question", "problem"), "\ud83d", "half a character at 0: the encoding is wrong"),
    ("prm800k", ("question", "ground_truth_answer"), 4.5, "ground_truth_answer is 4.5; it must be"),
    ("prm800k", ("label",), "+", "label is '.'; it must be an object"),
    ("prm800k", ("label", "steps"), None, "label.steps is absent"),
    ("prm800k", ("label", "finish_reason"), "tired", "finish_reason is 'tired'; allowed: solution"),
    ("prm800k", STEP, 3, "step 2 is 3; it must be an object"),
    ("prm800k", (*STEP, "completions"), "x", "step 2 is 'x'; it must be a list"),
    ("prm800k", (*STEP, "completions", 0), {"text": "x"}, "rating of completion 0 of step 2 is ab"),
    ("prm800k", (*STEP, "completions", 1, "text"), None, "text of completion 1 of step 2 is abse"),
    ("prm800k", (*STEP, "completions", 0, "rating"), 2, "rating .* is 2; allowed: -1, 0, 1"),
    ("prm800k", (*STEP, "completions", 0, "rating"), math.nan, "is nan; allowed: -1, 0, 1"),
    ("prm800k", (*STEP, "completions", 0, "rating"), True, "is True; allowed: -1, 0, 1"),
    ("prm800k", (*STEP, "completions", 0, "flagged"), "no", "flagged .* 'no'; it must be true or"),
    ("prm800k", (*STEP, "chosen_completion"), 2, "step 2 is 2; it has 2 completions"),
    ("prm800k", (*STEP, "chosen_completion"), -1, "step 2 is -1; it has 2 completions"),
    ("prm800k", (*STEP, "human_completion"), None, "step 2 has no chosen completion, and a step"),
    (
        "prm800k",
        ("question", "pre_generated_steps"),
        ["We add."],
        "step 2 is not step 2 of question",
    ),
    ("math_shepherd", ("input",), "2+2? Step 1: 4.", "no step tag"),
    ("math_shepherd", ("input",), None, "input is absent"),
    ("math_shepherd", ("label",), SHEPHERD["label"].replace("9", "8"), "not the text .* tag 2"),
    ("math_shepherd", ("label",), SHEPHERD["label"][:-1], "label has '' for step 2"),
    ("math_shepherd", ("label",), SHEPHERD["label"][:-1] + "0", "label has '0' for step 2"),
    ("math_shepherd", ("label",), SHEPHERD["label"] + " +", "label goes on after the end of input"),
    ("omegaprm", ("question",), "What is 3+3?", "text of the root is 'What is 2.2\\?'; it must be"),
    ("omegaprm", (*NODE, "mc_value"), 1.01, "mc_value of a node of depth 1 is 1.01; it must be in"),
    ("omegaprm", (*NODE, "mc_value"), math.nan, "is nan; it must be in"),
    ("omegaprm", (*NODE, "mc_value"), "1", "is '1'; it must be a number"),
    ("omegaprm", (*NODE, "children", 1, "text"), "", "text of a node of depth 2 is empty"),
    ("omegaprm", (*NODE, "children", 1), {"text": "x"}, "mc_value of a node of depth 2 is absent"),
    ("omegaprm", (*NODE, "children"), {}, "children of a node of depth 1 is dict; it must be a l"),
    ("trl", ("labels",), [True], "labels has 1 values for 2 completions"),
    ("trl", ("labels",), [True, False, True], "labels has 3 values for 2 completions"),
    ("trl", ("labels",), None, "labels is absent"),
    ("trl", ("labels",), [True, None], "label 2 is absent"),
    ("trl", ("labels",), [True, math.nan], "label 2 is nan; it must be in"),
    ("trl", ("labels",), [True, 10**400], "label 2 is an integer of over 20 digits; it must be in"),
    ("trl", ("labels",), [True, -0.1], "label 2 is -0.1; it must be in"),
    ("trl", ("completions",), [], "completions is empty"),
    ("trl", ("completions",), ["We add.", ""], "completion 2 is empty"),
    ("trl", ("completions",), "We add.", "completions is 'We add.'; it must be a list"),
    ("trl", ("finished",), 1, "finished is 1; it must be true or false"),
    ("labels", ("labels",), [None, None], "labels holds no label"),
    ("labels", ("counts",), [8], "counts has 1 values for 2 completions"),
    ("labels", ("counts",), [8, -1], "counts holds -1; it must hold integers of 0 or more"),
]


@pytest.mark.parametrize(("format", "path", "value", "reason"), BAD)
def test_bad_rows(format: str, path: tuple[str | int, ...], value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FORMATS[format].read(changed(ROWS[format], path, value), DEFAULT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2+2? Step 1: 4. {} Then {} and so on", "text without a label after the last tag"),
        ("2+2? {} Step 1: 4. {}", "'Step 1:' 0 times before its first tag"),
        ("2+2? As in Step 1: 4. Step 1: 4 {}", "'Step 1:' 2 times"),
        ("Step 1: 4. {}", "the question in input is empty"),
        ("2+2? Step 1: 4. {}\n{}", "step 2 is empty: two tags follow each other"),
    ],
)
def test_math_shepherd_text_that_is_not_told_apart(text: str, reason: str) -> None:
    columns = {"input": text.replace("{}", "ки"), "label": text.replace("{}", "+")}
    with pytest.raises(ValueError, match=reason):
        math_shepherd_row(row(columns), DEFAULT)


def test_a_deep_tree_is_walked() -> None:
    node: dict[str, Any] = {"text": "last", "mc_value": 1.0, "children": []}
    for _ in range(3000):
        node = {"text": "x", "mc_value": 0.5, "children": [node]}
    tree = {"question": "Q", "reasoning_steps": {"text": "Q", "mc_value": 0.5, "children": [node]}}
    [solution] = omegaprm_row(row(tree), DEFAULT)
    assert len(solution.labels) == 3001 and solution.labels[-1] == 1.0


def test_formats_are_told_by_their_columns(tmp_path: Path) -> None:
    for name, columns in ROWS.items():
        assert detect_format(columns) == name
    with pytest.raises(ValueError, match="looks like no known format; name one of prm800k"):
        detect_format({"prompt": "x", "labels": None})
    with pytest.raises(ValueError, match="looks like prm800k and math_shepherd"):
        detect_format({**PRM800K, **SHEPHERD})
    path = tmp_path / "rows.jsonl"
    path.write_text("[]\n" + json.dumps(TREE))
    assert format_of_source(str(path)) == "omegaprm"
    path.write_text("[]\n")
    with pytest.raises(ValueError, match="has no row that is an object"):
        format_of_source(str(path))
    with pytest.raises(ValueError, match="format is 'prm'; allowed: prm800k, "):
        read_labelled(str(path), "prm")
    with pytest.raises(
        ValueError, match="neutral_rating is 'good'; allowed: correct, unlabelled, inc"
    ):
        FormatOptions(neutral_rating="good")


def test_bad_rows_name_file_and_line_and_the_rest_is_counted(tmp_path: Path) -> None:
    good = json.dumps(STEPWISE).encode()
    lines = [
        good, b"", good.replace(b"true", b"NaN"), b'{"prompt": "\xff"}', b"{", b"[1]",
        json.dumps(STEPWISE).encode("utf-16"), good.replace(b"5", b"\\ud800"), good,
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    read = read_labelled(str(path), "trl")
    assert [str(bad).split(": ")[0] for bad in read.bad_rows] == [
        f"{path}, line {number}" for number in (3, 4, 5, 6, 7, 8)
    ]
    assert read.bad_rows[0].reason == "label 1 is nan; it must be in [0, 1]"
    summary = read.summary
    assert (summary.rows, summary.rejected, summary.unlabelled) == (8, 6, 0)
    assert (summary.problems, summary.solutions, summary.steps) == (1, 2, 4)
    assert (summary.labelled_steps, summary.positive, summary.share_positive) == (4, 2, 0.5)
    path.write_bytes(gzip.compress(json.dumps({**STEPWISE, "labels": [0.5, 0.25]}).encode()))
    soft = read_labelled(str(path), "trl").summary
    assert (soft.positive, soft.mean_label) == (1, 0.375)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz is cut off"):
        read_labelled(str(path), "trl")
    path.write_bytes(good)
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz is cut off or is not a gzip file"):
        read_labelled(str(path), "trl")


def test_a_data_set_is_read_as_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "train.jsonl"
    path.write_text(json.dumps(PRM800K) + "\n" + json.dumps(PRM800K) + "\n")
    direct = read_labelled(str(path), "prm800k")
    loaded = read_labelled(f"{tmp_path / 'set'}:train", "prm800k")
    assert loaded.solutions == direct.solutions and loaded.summary.solutions == 10


def published(name: str) -> tuple[str, list[dict[str, Any]]]:
    path = SHARED / f"{name}.jsonl"
    return str(path), [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@needs_data
def test_real_prm800k() -> None:
    """Counted by hand, row by row: solutions 10, 4, 7, 7, 7, 1; ratings 14, 10, 11, 13, 13, 12 and
    two human completions; 15 ratings of -1 and three of 0."""
    source, rows = published("prm800k_sample")
    assert format_of_source(source) == "prm800k"
    read = read_labelled(source, "prm800k")
    summary = read.summary
    assert (summary.rows, summary.rejected, summary.problems) == (6, 0, 6)
    assert (summary.solutions, summary.labelled_steps, summary.positive) == (36, 75, 60)
    less = read_labelled(source, "prm800k", FormatOptions(neutral_rating="unlabelled")).summary
    assert (less.labelled_steps, less.positive) == (72, 57)
    harsh = read_labelled(source, "prm800k", FormatOptions(neutral_rating="incorrect")).summary
    assert (harsh.labelled_steps, harsh.positive) == (75, 57)
    # The walk as the data set's description puts it together, of the rows that chose to the end.
    texts = {"".join(s.solution.steps) for s in read.solutions}
    for columns in (rows[i] for i in (0, 2, 3, 5)):
        walk = [
            step["human_completion"]["text"]
            if step["chosen_completion"] is None
            else step["completions"][step["chosen_completion"]]["text"]
            for step in columns["label"]["steps"]
        ]
        assert "\n".join(walk) in texts
    assert sum(s.finished for s in read.solutions) == 2 + 6 + 1 + 1


@needs_data
def test_real_math_shepherd() -> None:
    """By hand: 5, 3, 2, 5, 5, 2 and 3 steps; four "+" in the first row and one in the fifth."""
    source, rows = published("math_shepherd_sample")
    read = read_labelled(source, "math_shepherd")
    assert [len(s.labels) for s in read.solutions] == [5, 3, 2, 5, 5, 2, 3]
    assert [sum(filter(None, s.labels)) for s in read.solutions] == [4, 0, 0, 0, 1, 0, 0]
    assert (read.summary.positive, read.summary.labelled_steps) == (5, 25)
    for solution, columns in zip(read.solutions, rows, strict=True):
        text = solution.solution.prompt + "".join(solution.solution.steps)
        assert text == columns["input"].replace(" ки", "")
        assert all(step.startswith("Step ") for step in solution.solution.steps)


@needs_data
def test_real_omegaprm_trees() -> None:
    """143, 90 and 24 nodes with the roots, 137, 85 and 20 of them leaves; 2, 3 and 3 of value 0."""
    source, rows = published("math_aps_tree_sample")
    read = read_labelled(source, "omegaprm")
    assert (read.summary.solutions, read.summary.labelled_steps) == (242, 254)
    values: Counter[float] = Counter()
    waiting = [child for columns in rows for child in columns["reasoning_steps"]["children"]]
    while waiting:
        node = waiting.pop()
        values[node["mc_value"]] += 1
        waiting += node["children"]
    labels = Counter(label for s in read.solutions for label in s.labels if label is not None)
    assert labels == values
    assert sum(s.finished for s in read.solutions) == 135 + 82 + 17
