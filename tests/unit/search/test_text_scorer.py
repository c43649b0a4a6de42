"""The adapter from a search's token ids to reward models that read text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from data.types import ModelUsage, SteppedSolution, StopReason
from rewards.base import SolutionTooLong
from search.base import ScoreRequest
from search.batcher import run_searches
from search.scorer import TextScorer
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.solutions import SolutionsConfig


class Listener:
    """A reward model that records its questions. The score of a step is its length / 10. Solutions
    of more than `longest` steps are too long."""

    def __init__(self, longest: int = 99) -> None:
        self.longest = longest
        self.asked: list[list[SteppedSolution]] = []

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        self.asked.append(list(solutions))
        too_long = tuple(i for i, s in enumerate(solutions) if len(s.steps) > self.longest)
        if too_long:
            lengths = tuple(len(solutions[i].steps) for i in too_long)
            raise SolutionTooLong("too long", indices=too_long, lengths=lengths, limit=self.longest)
        return (
            [[len(step) / 10 for step in s.steps] for s in solutions],
            [ModelUsage(positions=len(s.steps), sequences=1) for s in solutions],
        )


class Lines:
    """The tokens of an engine: "/" ends a step, and "$" is the end token."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids)).replace("$", "")

    def step_ends(self, token_ids: Sequence[int]) -> list[int]:
        last = len(token_ids) - 1
        return [i for i, token in enumerate(token_ids) if chr(token) == "/" or i == last]


def request(text: str, step_ends: Sequence[int], prompt: str = "<q>") -> tuple[str, ScoreRequest]:
    ids = tuple(map(ord, prompt + text))
    ends = tuple(len(prompt) + end for end in step_ends)
    return "p", ScoreRequest(node=1, sequence=ids, step_ends=ends, prompt_length=len(prompt))


def scorer(model: Any) -> TextScorer:
    return TextScorer(model, Lines(), lambda ids: "".join(map(chr, ids)).strip("<>"))  # type: ignore[arg-type]


def test_ids_become_problem_and_steps() -> None:
    model = Listener()
    results = scorer(model).score_batch(
        [request("ab/cde/f", [2, 6, 7]), request("x/", [1], prompt="<other>")]
    )
    assert model.asked == [
        [
            SteppedSolution(prompt="q", steps=("ab/", "cde/", "f")),
            SteppedSolution(prompt="other", steps=("x/",)),
        ]
    ]
    assert [result.scores for result in results] == [(0.3, 0.4, 0.1), (0.2,)]
    assert [result.usage.positions for result in results] == [3, 1]


def test_only_the_end_is_asked_for_but_all_steps_are_told() -> None:
    model = Listener()
    [result] = scorer(model).score_batch([request("ab/cde/", [6])])
    assert model.asked[0][0].steps == ("ab/", "cde/")
    assert result.scores == (0.4,)


def test_the_end_token_alone_is_no_step() -> None:
    model = Listener()
    results = scorer(model).score_batch([request("ab/cde/$", [2, 6, 7]), request("$", [0])])
    assert model.asked[0][0].steps == ("ab/", "cde/")
    assert results[0].scores == (0.3, 0.4, 0.4)
    assert model.asked[0][1].steps == ("",)  # a solution without text
    # A step that is cut in its middle becomes two steps.
    model = Listener()
    [cut] = scorer(model).score_batch([request("abcd/", [1, 4])])
    assert model.asked[0][0].steps == ("ab", "cd/") and cut.scores == (0.2, 0.3)


def test_what_is_too_long_has_no_score_and_the_rest_has() -> None:
    model = Listener(longest=2)
    batch = [request("a/b/c/", [5]), request("ab/", [2]), request("a/b/c/d", [6, 1])]
    results = scorer(model).score_batch(batch)
    assert math.isnan(results[0].scores[0]) and len(results[2].scores) == 2
    assert results[1].scores == (0.3,)
    assert results[0].usage == ModelUsage()
    assert [len(asked) for asked in model.asked] == [3, 1]
    model = Listener(longest=0)
    assert math.isnan(scorer(model).score_batch([request("a/", [1])])[0].scores[0])
    assert scorer(model).score_batch([]) == []


def test_a_request_must_say_where_its_prompt_ends() -> None:
    ids = (1, 2, 3)
    said = {
        0: "problem p: prompt_length is 0",
        3: "problem p: a reward model that reads text has no value of a prompt alone",
    }
    for length, message in said.items():
        wrong = ScoreRequest(node=0, sequence=ids, step_ends=(2,), prompt_length=length)
        with pytest.raises(ValueError, match=message):
            scorer(Listener()).score_batch([("p", wrong)])


@pytest.mark.parametrize("guidance", ["prm", "outcome"])
def test_searches_ask_in_text(toys: Any, guidance: str) -> None:
    """Every letter is a step, and the last letter ends the solution. The scored steps are the
    sampled steps."""

    def letters(text: str) -> dict[str, float]:
        return {"a": 0.5, "b": 0.5} if len(text) < 3 else {".": 1.0}

    model = Listener(longest=3)
    engine = toys.Engine(letters)
    problems = [toys.problem("p0", "aaa"), toys.problem("p1", "bbb")]
    results = list(
        run_searches(
            problems,
            bind(SolutionsConfig(budgets=(4,))),
            engine=engine,
            scorer=TextScorer(model, engine, lambda ids: "the question"),
            verify=toys.verify,
            settings=SearchSettings(guidance=guidance, max_new_tokens=8),
        )
    )
    for result in results:
        finished = [n for n in result.nodes if n.terminal is StopReason.END_OF_SOLUTION]
        assert finished and all(node.score == pytest.approx(0.1) for node in finished)
        assert result.usage.reward.sequences == len({node.text for node in finished})
    asked = {solution for batch in model.asked for solution in batch}
    assert {solution.prompt for solution in asked} == {"the question"}
    texts = {node.text.strip(".") for result in results for node in result.nodes if node.text}
    assert {"".join(solution.steps).strip(".") for solution in asked} == texts
