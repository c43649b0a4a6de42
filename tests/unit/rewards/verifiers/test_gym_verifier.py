"""reasoning-gym's puzzles and its own scorers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from data.tasks.reasoning_gym import GymPuzzle, ReasoningGymConfig, ReasoningGymTask, runs_text
from data.types import Outcome, Problem
from rewards.verifiers.puzzles import GymVerifier

pytest.importorskip("reasoning_gym", reason="the optional extra reasoning-gym is not installed")
SIZES = {"demonstrations": 2, "train": 3, "validation": 2, "test": 2}
VERIFIER = GymVerifier(seconds=60)


def task(kind: str, **options: object) -> ReasoningGymTask:
    return ReasoningGymTask(config=ReasoningGymConfig(dataset=kind, options=dict(options)))


@pytest.mark.parametrize("kind", ["chain_sum", "leg_counting", "gcd", "caesar_cipher"])
def test_expected_answers_are_correct_and_others_are_not(kind: str) -> None:
    splits = task(kind).make_splits(5, **SIZES)
    problems = [*splits.train, *splits.validation, *splits.test]
    assert len({p.prompt for p in problems}) == 7
    for problem in problems:
        expected = GymPuzzle.from_answer(problem.answer).expected
        assert VERIFIER.verify(problem, f"I think.\n#### {expected}").correct
        assert VERIFIER.verify(problem, f"<answer>{expected}</answer>").correct
        wrong = VERIFIER.verify(problem, f"#### {expected}1")
        assert wrong.outcome is Outcome.WRONG
        assert "of 1" in wrong.reason
        assert VERIFIER.verify(problem, expected).outcome is Outcome.UNVERIFIABLE
    for demonstration in splits.demonstrations:
        assert VERIFIER.verify(demonstration.problem, demonstration.solution).correct


GRIDS = ("mini_sudoku", "rotate_matrix", "futoshiki", "tower_of_hanoi", "modulo_grid", "arc_agi")


@pytest.mark.slow
@pytest.mark.parametrize("kind", GRIDS)
def test_answers_of_several_lines(kind: str) -> None:
    for demonstration in task(kind).make_splits(5, **SIZES).demonstrations:
        problem, text = demonstration.problem, demonstration.solution.removeprefix("#### ")
        assert "\n" in text
        assert VERIFIER.verify(problem, demonstration.solution).correct
        assert VERIFIER.verify(problem, f"So it is:\n#### {text}\n").correct
        assert VERIFIER.verify(problem, f"<answer>\n{text}\n</answer>").correct
        assert VERIFIER.verify(problem, f"<answer>\n```\n{text}\n```\n</answer>").correct
        assert not VERIFIER.verify(problem, f"#### {text}\n1 2 3").correct


@pytest.mark.parametrize(
    "wrapped",
    ["#### \\boxed{{{}}}", "\\boxed{{{}}}", "<answer>\\boxed{{{}}}</answer>", "#### **{}**",
     "<answer>`{}`</answer>", "#### ${}$", "####\n```text\n{}\n```", "<answer> {} </answer>",
     "#### <answer>{}</answer>", "\\boxed{{\\text{{{}}}}}", "**Answer:** {}"],
)  # fmt: skip
def test_wrapped_answers_reach_the_scorer_clean(wrapped: str) -> None:
    for kind in ("gcd", "caesar_cipher"):
        problem = task(kind).make_splits(5, **SIZES).train[0]
        expected = GymPuzzle.from_answer(problem.answer).expected
        assert VERIFIER.verify(problem, f"I think.\n{wrapped.format(expected)}").correct
        assert not VERIFIER.verify(problem, f"I think.\n{wrapped.format(expected + '1')}").correct


@pytest.mark.parametrize("kind", ["boxnet", "graph_color", "rubiks_cube", "rush_hour"])
def test_kinds_without_answers_have_no_demonstrations(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind!r} has no answers to show"):
        task(kind).make_splits(5, **SIZES)
    splits = task(kind).make_splits(5, **{**SIZES, "demonstrations": 0})
    assert len(splits.train) == 3
    assert not VERIFIER.verify(splits.train[0], "#### None").correct


def test_the_same_seed_gives_the_same_puzzles() -> None:
    assert task("gcd").make_splits(5, **SIZES) == task("gcd").make_splits(5, **SIZES)
    assert task("gcd").make_splits(5, **SIZES) != task("gcd").make_splits(6, **SIZES)


def test_seeds_next_to_each_other_share_no_puzzles() -> None:
    made = [
        {p.group for p in task("chain_sum").make_splits(s, **SIZES).train} for s in range(17, 25)
    ]
    assert len(set.union(*made)) == 3 * len(made)


def test_a_file_in_the_users_folder_is_no_module_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = task("gcd").make_splits(5, **SIZES).train[0]
    for name in ("reasoning_gym", "rewards", "resource"):
        (tmp_path / f"{name}.py").write_text("open('IMPORTED', 'w').close()\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    expected = GymPuzzle.from_answer(problem.answer).expected
    assert GymVerifier(seconds=60.5).verify(problem, f"#### {expected}").correct
    assert not (tmp_path / "IMPORTED").exists()


def test_scorers_that_evaluate_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'basic_arithmetic' cannot be verified: .* evaluates"):
        task("basic_arithmetic").make_splits(5, **SIZES)
    puzzle = GymPuzzle(
        dataset="basic_arithmetic", options={}, seed=5, size=9, index=1, expected="1"
    )
    problem = Problem(id="p", prompt="", answer=puzzle.to_answer())
    with pytest.raises(ValueError, match="evaluates the text of an answer"):
        VERIFIER.verify(problem, "#### __import__('os').getpid()")


def test_how_many_kinds_can_be_verified() -> None:
    """The number that the README says."""
    factory: Any = importlib.import_module("reasoning_gym.factory")
    kinds = [kind for kind, _ in factory.DATASETS.values()]
    refused = [k for k in kinds if runs_text(object.__new__(k))]
    assert (len(kinds), len(refused)) == (106, 14)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="dataset 'chain_sun'"):
        task("chain_sun").make_splits(5, **SIZES)
    with pytest.raises(ValueError, match="dataset 'chain_sum' with options"):
        task("chain_sum", no_such_option=1).make_splits(5, **SIZES)
    with pytest.raises(ValueError, match="options holds 'seed'"):
        task("chain_sum", seed=1)
    with pytest.raises(ValueError, match="distinct ones out of"):
        task("chain_sum", min_digits=1, max_digits=1, min_terms=2, max_terms=2).make_splits(
            5, demonstrations=0, train=2000, validation=0, test=0
        )
    for answer in ("x", "[]", "{}", json.dumps({"dataset": 3})):
        with pytest.raises(ValueError, match="problem p: answer"):
            VERIFIER.verify(Problem(id="p", prompt="", answer=answer), "#### 1")
    with pytest.raises(ValueError, match="seconds is 0"):
        GymVerifier(seconds=0)
