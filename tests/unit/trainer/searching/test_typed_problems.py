"""Typed problems of a task: how they are asked, how their answers are compared and shown."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from data.prompts import chat_prompt, question_of
from data.types import Problem
from rewards.models.folders import load_tokenizer
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.final_answers import EqualAnswers
from search.base import SampleRequest
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.settings import SearchSettings
from search.strategies.solutions import SolutionsConfig
from trainer.models.loading import load_policy, save_model
from trainer.searching.solve import SolveConfig, solve
from trainer.searching.typed_problems import typed_problem
from trainer.searching.watching import Watched

from ...families import family_folder

ANY: dict[str, Any] = {"task": None, "template": None, "answer": None, "chat": None}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(str(family_folder("qwen_3", tmp_path_factory.mktemp("qwen"))))


def test_a_typed_problem_is_asked_in_the_chat_template(qwen: Any) -> None:
    asked: dict[str, Any] = {**ANY, "thinking": None, "tokenizer": qwen}
    problem = typed_problem("1 + 1?", **{**asked, "task": "math", "answer": "2"})
    assert problem.prompt == (
        "<|im_start|>user\n1 + 1?\nReason step by step, one step a line, and put the final answer "
        "in \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert problem.answer == "2"
    plain = typed_problem("1 + 1?", **{**asked, "chat": False, "template": "Q: {problem}\nA:"})
    assert plain.prompt == "Q: 1 + 1?\nA:"
    off = typed_problem("1 + 1?", **{**asked, "thinking": False})
    assert off.prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert question_of(off.prompt, qwen) == question_of(problem.prompt, qwen) == "1 + 1?"


def test_a_countdown_problem_has_its_numbers_and_its_answer(tiny_policy: Any) -> None:
    _, tokenizer = tiny_policy
    asked: dict[str, Any] = {**ANY, "task": "countdown", "thinking": None, "tokenizer": tokenizer}
    problem = typed_problem("3 4 7 12 -> 24", **asked)
    assert (problem.prompt, problem.answer) == ("3 4 7 12 -> 24\n", "24")
    assert problem.numbers == (3, 4, 7, 12)
    with pytest.raises(ValueError, match="problem is '3 4'; a Countdown problem looks like"):
        typed_problem("3 4", **asked)


def test_a_template_that_raises_is_named(qwen: Any, tmp_path: Path) -> None:
    qwen.save_pretrained(tmp_path)
    broken = load_tokenizer(str(tmp_path))
    broken.chat_template = "{{ raise_exception('no user turns here') }}"
    with pytest.raises(ValueError, match=r"the chat template of .* refuses .*no user turns here"):
        chat_prompt(broken, "1 + 1?")
    broken.chat_template = "{% if %}"
    with pytest.raises(ValueError, match="refuses a user's turn: Expected an expression"):
        chat_prompt(broken, "1 + 1?")
    broken.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        chat_prompt(broken, "1 + 1?")


def test_equal_answers_share_a_vote() -> None:
    same = EqualAnswers(VERIFIERS["math"]().verify)
    problem = Problem(id="p", prompt="What is one half?", answer="")
    halves = ["\\boxed{\\frac{1}{2}}", "It is \\boxed{0.5}.", "\\boxed{1/2}", "\\boxed{ 0.5 }"]
    assert {same(problem, text) for text in halves} == {"\\frac{1}{2}"}
    assert same(problem, "\\boxed{0.51}") == "0.51"
    assert same(problem, "no answer") == "no answer"
    # Another problem has groups of its own.
    other = Problem(id="q", prompt="What is one half?", answer="")
    assert same(other, halves[2]) == "1/2"


def test_the_answer_of_a_typed_problem_is_checked(
    tiny_policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(*tiny_policy, tmp_path)
    settings = SearchSettings(guidance="likelihood", max_step_tokens=6, max_new_tokens=20)
    fields: dict[str, Any] = {"model": str(tmp_path), "strategy": "solutions", "task": "countdown"}
    config = SolveConfig(problem="3 4 7 -> 11", **fields)
    [thought] = solve(config, settings, SolutionsConfig(budgets=(8,)))
    assert thought.verdict in ("wrong", "unverifiable")
    assert "verdict     " in capsys.readouterr().out


def test_tokens_stream_as_they_come(tmp_path: Path) -> None:
    """The stream holds the running sample's text, and never half a character."""
    model, tokenizer = load_policy(str(family_folder("smollm_2", tmp_path)))
    engine = TransformersEngine(model, tokenizer, EngineConfig(seed=3))
    stream = StringIO()
    written: list[str] = []
    stream.write = written.append  # pyright: ignore[reportAttributeAccessIssue]
    watched = Watched(engine, stream)
    request = SampleRequest(
        node=0, prefix=engine.encode_prompt("1 + 1 ="), n=1, stop_at_step=False, max_new_tokens=12
    )
    [result] = watched.sample_batch([("p", request)])
    text = engine.decode(result.samples[0].token_ids)
    *streamed, _, _ = written
    assert "".join(streamed).startswith(text)
    assert len([piece for piece in streamed if piece]) > 3
