"""Countdown thoughts: what the search writes is true, ends at a solution, and is read back."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from data.tasks.countdown import CountdownConfig, make_problem
from data.tasks.countdown_lines import BEHAVIOURS, read_thought
from data.tasks.countdown_splits import CountdownTask
from data.tasks.countdown_thoughts import CountdownThoughtsConfig, CountdownThoughtsTask
from data.thoughts import split_solution, with_thought
from data.token_text import TokenText
from data.tokenizers import build_tokenizer
from data.types import Outcome
from rewards.verifiers.countdown import CountdownVerifier
from rewards.verifiers.final_answers import countdown_operations

SIZES: dict[str, Any] = {
    "num_numbers": 4, "min_number": 1, "max_number": 12, "max_value": 30, "min_target": 10,
    "max_target": 30,
}  # fmt: skip
CONFIG = CountdownThoughtsConfig(**SIZES, search_kinds=("depth_first", "best_first"))
PROBLEM = make_problem((3, 4, 7, 12), 24)
BY_HAND = """numbers 3 4 7 12 target 24
goal 2 | 24 = 12 * 2
try 7 - 4 = 3 | 3 12 3
check 3 < 24
try 12 * 3 = 36 | 3 36
check 36 > 24
try 36 / 3 = 12 | 12
check 12 < 24
spent back 3 36
tried back 3 3 12
far back 3 4 7 12
instead 12 + 7 = 19 | 3 4 19
check 19 < 24"""


def splits(config: CountdownThoughtsConfig, problems: int = 60) -> Any:
    return CountdownThoughtsTask(config=config).make_splits(
        3, demonstrations=problems, train=5, validation=5, test=5
    )


def shown(config: CountdownThoughtsConfig) -> set[str]:
    """The behaviours in 60 thoughts."""
    return {
        behaviour
        for d in splits(config).demonstrations
        for line in read_thought(d.problem, split_solution(d.solution).thought or "")
        for behaviour in line.behaviours
    }


def test_lines_by_hand() -> None:
    lines = read_thought(PROBLEM, BY_HAND)
    assert [line.fault for line in lines] == [None] * 13
    first = [line.behaviours for line in lines]
    assert first[:4] == [("analysis",), ("decomposition",), ("completion",), ("evaluation",)]
    assert first[8:] == [("correction",)] * 3 + [("completion", "alternative"), ("evaluation",)]


@pytest.mark.parametrize(
    ("line", "false", "fault"),
    [
        (0, "numbers 3 4 7 11 target 24", "not the problem's numbers"),
        (0, "numbers 3 4 7 12 target 25", "not the problem's numbers"),
        (1, "goal 2 | 24 = 11 * 2", "11 * 2 is not 24"),
        (1, "goal 6 | 24 = 6 * 4", None),
        (1, "goal 8 | 24 = 8 * 3", None),
        (1, "goal 20 | 24 = 20 + 5", "20 + 5 is not 24"),
        (1, "goal 19 | 24 = 19 + 5", "5 is not among"),
        (2, "try 7 - 4 = 2 | 3 12 2", "is 3, not 2"),
        (2, "try 7 - 5 = 2 | 3 12 2", "were not reached"),
        (3, "check 3 > 24", "does not compare"),
        (3, "check 4 < 24", "does not compare"),
        (8, "spent back 3 35", "were not reached"),
        (9, "spent back 3 3 12", "more than one number"),
        (4, "tried back 3 4 7 12", "nothing was tried from"),
        (4, "Hmm", "not a line of a thought"),
        (4, "Wait", None),
    ],
)
def test_false_lines(line: int, false: str, fault: str | None) -> None:
    lines = BY_HAND.split("\n")[: line + 1]
    lines[line] = false
    said = read_thought(PROBLEM, "\n".join(lines))[-1].fault
    assert (said is None) if fault is None else (said is not None and fault in said)


@pytest.mark.parametrize("heuristic", ["nearest", "factors", "sum"])
@pytest.mark.parametrize("search", ["depth_first", "best_first"])
def test_thoughts_are_true_and_end_correctly(search: str, heuristic: str) -> None:
    config = replace(CONFIG, search_kinds=(search,), heuristics=(heuristic,), traces_per_problem=2)
    found = splits(config)
    assert len(found.demonstrations) == 120
    verifier, reasons = CountdownVerifier(max_value=30), set[str]()
    for demonstration in found.demonstrations:
        assert verifier.verify(demonstration.problem, demonstration.solution).correct
        thought = split_solution(demonstration.solution).thought or ""
        assert [line.fault for line in read_thought(demonstration.problem, thought)].count(
            None
        ) == (len(thought.splitlines()))
        assert thought.count("try ") + thought.count("instead ") <= config.most_tries
        reasons |= {line.split(" back")[0] for line in thought.split("\n") if " back " in line}
    # Only a best-first search leaves numbers from which more could be tried.
    assert reasons == {"spent", "tried"} if search == "depth_first" else "far" in reasons


def test_the_problems_are_those_of_the_plain_task() -> None:
    found = splits(CONFIG)
    plain = CountdownTask(config=CountdownConfig(**SIZES)).make_splits(
        3, demonstrations=60, train=5, validation=5, test=5
    )
    assert [d.problem for d in found.demonstrations] == [d.problem for d in plain.demonstrations]
    assert (found.train, found.validation, found.test) == (
        plain.train,
        plain.validation,
        plain.test,
    )


def test_every_trace_and_every_seed_is_new() -> None:
    config = replace(CONFIG, traces_per_problem=3)
    found = splits(config).demonstrations
    assert [d.problem for d in found[:60]] == [d.problem for d in found[60:120]]
    same = sum(a.solution == b.solution for a, b in zip(found[:60], found[60:120], strict=True))
    assert same < 30  # short thoughts are often equal by chance
    assert splits(config).demonstrations == found
    task = CountdownThoughtsTask(config=config)
    traces = {task.demonstrate(PROBLEM, random.Random(seed)) for seed in range(20)}
    assert len(traces) >= 18


@pytest.mark.parametrize("left_out", [b for b in BEHAVIOURS if b != "completion"])
def test_one_behaviour_is_left_out(left_out: str) -> None:
    expected = set(BEHAVIOURS) - {left_out}
    if left_out == "alternative":  # a thought that never tries another way never goes back
        expected -= {"correction"}
    assert shown(replace(CONFIG, leave_out=left_out)) == expected
    assert shown(CONFIG) == set(BEHAVIOURS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_kinds": ("depth",)}, "did you mean 'depth_first'"),
        ({"heuristics": ()}, "heuristics is empty"),
        ({"leave_out": "completion"}, "leave_out has 'completion'"),
        ({"behaviours": {"analysys": 1.0}}, "did you mean 'analysis'"),
        ({"behaviours": {"analysis": 1.5}}, r"it must be in \[0, 1\]"),
        ({"most_tries": 2, "least_tries": 3}, "at least least_tries, 3"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_refused_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CountdownThoughtsConfig(**SIZES, **changes)


def test_the_thoughts_tokenizer_encodes_every_line() -> None:
    tokenizer = build_tokenizer("thoughts", 36)
    encode = TokenText(tokenizer).encode
    for demonstration in splits(CONFIG).demonstrations:
        ids = encode(demonstration.solution)
        assert tokenizer.decode(ids) == demonstration.solution
    ids = encode(BY_HAND)
    assert tokenizer.decode(ids) == BY_HAND
    # One token per word, number, sign and line break.
    assert len(encode("tried back 3 3 12\ncheck 3 < 24\n")) == 11


def test_the_verifier_reads_the_answer_part() -> None:
    problem = make_problem((3, 4, 7, 12), 12)
    verify = CountdownVerifier().verify
    good = "12 * 4 = 48 | 3 7 48\n7 - 3 = 4 | 48 4\n48 / 4 = 12 | 12"
    assert verify(problem, with_thought("nonsense", good)).correct
    assert verify(problem, f"the prompt opened it\n</think>\n{good}").correct
    assert verify(problem, f"<think>\n{good}").outcome is Outcome.UNVERIFIABLE
    assert verify(problem, with_thought(good, "48 / 4 = 12 | 12")).outcome is Outcome.WRONG
    assert countdown_operations(problem, with_thought("a", good)) == countdown_operations(
        problem, good
    )
