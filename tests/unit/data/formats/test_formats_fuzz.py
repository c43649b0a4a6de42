"""Any JSON, any text and mutated rows: a reader gives sound solutions or says what is wrong."""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.formats.base import NEUTRAL, FormatOptions
from data.formats.math_shepherd import math_shepherd_row
from data.formats.omegaprm import omegaprm_row
from data.formats.prm800k import prm800k_row
from data.formats.reading import FORMATS, read_labelled
from data.formats.stepwise import labels_columns, labels_row, trl_columns, trl_row
from data.sources import Row
from data.types import LabelledSolution, SteppedSolution

FILES = {
    "prm800k": "prm800k_sample", "math_shepherd": "math_shepherd_sample",
    "omegaprm": "math_aps_tree_sample",
}  # fmt: skip
STEPWISE = {
    "prompt": "Q", "completions": ["a", "b", "c"], "labels": [True, 0.5, 1], "counts": [1, 2, 3],
    "problem_id": "p", "answer": "4", "finished": True,
}  # fmt: skip
quick = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 0, 1, -1, 2])
    | st.floats()  # NaN and infinities, which Python's JSON reader lets in
    | st.text(max_size=8)
    | st.sampled_from(["", " ", "\ud83d", "ки", "Step 1:", "+", "-", "found_error", "solution"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = sorted(
    {key for format in FORMATS.values() for key in format.columns}
    | {"steps", "text", "mc_value", "children", "rating", "chosen_completion", "human_completion",
       "problem", "finish_reason", "finished", "answer"}
)  # fmt: skip
objects = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        values,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
        ),
        max_leaves=8,
    ),
    max_size=6,
)
options = st.builds(
    FormatOptions,
    neutral_rating=st.sampled_from(list(NEUTRAL)),
    delimiter=st.none() | st.sampled_from(["", "\n", " | "]),
)


def row(columns: Any) -> Row:
    return Row(location="here", columns=columns)


def check(name: str, columns: Any, chosen: FormatOptions) -> None:
    """Sound solutions or ValueError; anything else fails the test."""
    try:
        solutions = FORMATS[name].read(row(columns), chosen)
    except ValueError as error:
        assert str(error)
        return
    for solution in solutions:
        steps = solution.solution.steps
        assert len(steps) == len(solution.labels) == len(solution.counts) > 0
        assert any(label is not None for label in solution.labels)
        for label in solution.labels:
            assert label is None or (type(label) is float and 0 <= label <= 1)
        assert solution.solution.prompt.strip() and solution.problem_id
        assert all(isinstance(step, str) for step in steps)
        json.dumps(labels_columns(solution)).encode()


@pytest.mark.parametrize("name", FORMATS)
@given(columns=objects, chosen=options)
@quick
def test_any_json(name: str, columns: Any, chosen: FormatOptions) -> None:
    check(name, columns, chosen)


odd_labels = st.sampled_from([float("nan"), float("inf"), 1.5, -1, 10**400, "1", [], None])


@given(labels=st.lists(st.booleans() | st.floats(0, 1) | odd_labels, min_size=2, max_size=4))
@settings(quick, max_examples=200)
def test_any_labels(labels: list[Any]) -> None:
    for name in ("trl", "labels"):
        check(name, {**STEPWISE, "labels": labels}, FormatOptions())


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, (dict, list)):
        return [at]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


@pytest.fixture
def rows(name: str, request: pytest.FixtureRequest) -> list[Any]:
    """Published rows of the format called `name`, or one by hand where none are published."""
    if name not in FILES:
        return [STEPWISE]
    path = request.getfixturevalue("published_data") / f"{FILES[name]}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data(), chosen=options)
@quick
def test_mutated_real_rows(
    name: str, rows: list[Any], data: st.DataObject, chosen: FormatOptions
) -> None:
    columns = copy.deepcopy(data.draw(st.sampled_from(rows)))
    check(name, columns, chosen)
    for _ in range(data.draw(st.integers(1, 3))):
        where = places(columns)[1:]
        if not where:
            break
        path = data.draw(st.sampled_from(where))
        at: Any = columns
        for key in path[:-1]:
            at = at[key]
        change = data.draw(st.sampled_from(["replace", "remove", "cut", "repeat"]))
        old = at[path[-1]]
        if change == "remove":
            del at[path[-1]]
        elif change == "cut" and isinstance(old, (str, list)):
            at[path[-1]] = old[: data.draw(st.integers(0, len(old)))]
        elif change == "repeat" and isinstance(old, (str, list)):
            at[path[-1]] = old + copy.deepcopy(old)
        else:
            at[path[-1]] = data.draw(values)
    check(name, columns, chosen)


pieces = st.lists(
    st.sampled_from([" ки", "ки", "\n", " ", "Step 1:", "Step 2:", "x.", "+", "-", "?"]),
    max_size=12,
).map("".join)


tagged = st.builds(
    lambda question, steps: question + "Step 1:" + "".join(map("".join, steps)),
    st.sampled_from(["1+1? ", "x\n", "? "]),
    st.lists(
        st.tuples(
            st.sampled_from([" a.", "b", "  c\n", "Step 2: d"]),
            st.sampled_from([" ки", "ки"]),
            st.sampled_from(["", "\n", " \n ", "\u2028"]),
        ),
        min_size=1,
        max_size=3,
    ),
)


@given(text=tagged | pieces | st.text(max_size=20), label=pieces | st.none())
@settings(quick, max_examples=200)
def test_any_tagged_text(text: str, label: str | None) -> None:
    """Also the text's own label, so that some of it is in order; what is read is the text."""
    for given_label in (label, text.replace("ки", "+")):
        columns = {"input": text, "label": given_label}
        check("math_shepherd", columns, FormatOptions())
        try:
            [solution] = math_shepherd_row(row(columns), FormatOptions())
        except ValueError:
            continue
        joined = solution.solution.prompt + "".join(solution.solution.steps)
        assert joined == text.replace(" ки", "").replace("ки", "")
        assert len(solution.labels) == text.count("ки")


words = st.text(alphabet="ab \n", min_size=1, max_size=5).filter(str.strip)


@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.tuples(words, st.sampled_from([-1, 0, 1])), min_size=1, max_size=3),
            st.none() | words,
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=4,
    )
)
@quick
def test_every_rating_is_read_once(steps: Any) -> None:
    walk = [
        {
            "completions": [{"text": t, "rating": r, "flagged": None} for t, r in pairs],
            "human_completion": human and {"text": human, "rating": None},
            "chosen_completion": min(chosen, len(pairs) - 1) if not human else None,
        }
        for pairs, human, chosen in steps
    ]
    columns = {
        "question": {"problem": "Q"}, "label": {"steps": walk, "finish_reason": "solution"}
    }  # fmt: skip
    solutions = prm800k_row(row(columns), FormatOptions(delimiter=""))
    labels = Counter(label for s in solutions for label in s.labels if label is not None)
    ratings = [r for pairs, _, _ in steps for _, r in pairs]
    humans = sum(human is not None for _, human, _ in steps)
    assert labels[0.0] == ratings.count(-1)
    assert labels[1.0] == len(ratings) - ratings.count(-1) + humans
    texts = [t for pairs, human, _ in steps for t in [*(t for t, _ in pairs), human] if t]
    assert Counter(s.solution.steps[-1] for s in solutions[1:]) + Counter(
        solutions[0].solution.steps
    ) == Counter(texts)


nodes = st.recursive(
    st.builds(lambda t, v: {"text": t, "mc_value": v, "children": []}, words, st.floats(0, 1)),
    lambda inner: st.builds(
        lambda t, v, c: {"text": t, "mc_value": v, "children": c},
        words, st.floats(0, 1), st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=10,
)  # fmt: skip


@given(children=st.lists(nodes, max_size=3))
@quick
def test_every_node_is_read_once(children: list[Any]) -> None:
    root = {"text": "Q", "mc_value": 0.5, "children": children}
    columns = {"question": "Q", "reasoning_steps": root}
    solutions = omegaprm_row(row(columns), FormatOptions(delimiter=""))
    paths: list[tuple[str, ...]] = []
    labels: Counter[float] = Counter()

    def walk(node: Any, above: tuple[str, ...]) -> None:
        labels[node["mc_value"]] += 1
        path = (*above, node["text"])
        for child in node["children"]:
            walk(child, path)
        if not node["children"]:
            paths.append(path)

    for child in children:
        walk(child, ())
    assert [s.solution.steps for s in solutions] == paths
    assert Counter(label for s in solutions for label in s.labels if label is not None) == labels


@st.composite
def solutions(draw: st.DrawFn) -> LabelledSolution:
    steps = draw(st.lists(words | st.just(""), min_size=1, max_size=5))
    n = len(steps)
    labels = draw(
        st.lists(st.none() | st.floats(0, 1), min_size=n, max_size=n).filter(
            lambda labels: any(label is not None for label in labels)
        )
    )
    return LabelledSolution(
        problem_id=draw(words), solution=SteppedSolution(prompt=draw(words), steps=tuple(steps)),
        labels=tuple(labels),
        counts=tuple(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))),
        answer=draw(st.text(alphabet="xy", max_size=2)), finished=draw(st.booleans()),
    )  # fmt: skip


@given(solution=solutions())
@quick
def test_what_is_written_is_read_back(solution: LabelledSolution) -> None:
    columns = json.loads(json.dumps(labels_columns(solution)))
    assert labels_row(row(columns), FormatOptions()) == [solution]
    columns = json.loads(json.dumps(trl_columns(solution)))
    last = max(i for i, label in enumerate(solution.labels) if label is not None)
    assert "".join(columns["completions"]) == "".join(solution.solution.steps[: last + 1])
    assert columns["labels"] == [label >= 0.5 for label in solution.labels if label is not None]
    if all(text.strip() for text in columns["completions"]):
        [again] = trl_row(row(columns), FormatOptions(delimiter=""))
        assert again.solution.steps == tuple(columns["completions"])


@pytest.mark.parametrize("name", FORMATS)
@given(
    lines=st.lists(
        st.binary(max_size=12)
        | objects.map(lambda columns: json.dumps(columns).encode())
        | st.just(json.dumps(STEPWISE).encode())
    )
)
@settings(quick, max_examples=15)
def test_any_file(name: str, lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        content = b"\n".join(lines)
        path.write_bytes(content)
        filled = sum(bool(line.strip()) for line in content.split(b"\n"))
        if not filled:
            with pytest.raises(ValueError, match="has no rows"):
                read_labelled(str(path), name)
            return
        read = read_labelled(str(path), name)
        assert read.summary.rows == filled
        assert read.summary.rejected == len(read.bad_rows)
        assert all(f"{path}, line " in str(bad) and bad.reason for bad in read.bad_rows)
