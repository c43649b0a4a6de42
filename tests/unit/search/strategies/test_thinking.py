"""Budgets of thought: a scripted policy whose thoughts are cut and extended at known places."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from data.types import ModelUsage, Problem, StopReason
from search.base import SearchResult, solution_ids
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.thinking import ThinkingConfig, thought_counts
from search.trees.files import result_from_json, result_to_json

FIRST = "<think>\nab\ncd\nef\n</think>\n"  # 8 + 3 x 3 = 17 tokens before the closing words, 9 after
GREEDY = SearchSettings(answer="first", temperature=0.0)


def scripted(text: str) -> dict[str, float]:
    """Thinks three lines, or one more line after each cue. Answers with the number of lines."""
    thought, closed, answer = text.partition("</think>\n")
    if closed:
        lines = [line for line in thought.split("\n") if len(line) == 2]
        return {str(min(len(lines), 9)) if not answer else ".": 1.0}
    before, cue, after = thought.rpartition("W\n")
    script = "gh\n</think>\n" if cue else FIRST
    return {script[len(after if cue else before + after)]: 1.0}


def run(toys: Any, config: ThinkingConfig, policy: Any = scripted, **options: Any) -> SearchResult:
    class Lines(toys.Engine):
        def step_ends(self, token_ids: Any) -> list[int]:
            last = len(token_ids) - 1
            return [i for i, token in enumerate(token_ids) if token == 10 or i == last]

    settings = options.pop("settings", GREEDY)
    prompt = options.pop("prompt", "?>")
    [result] = run_searches(
        [Problem(id="p", prompt=prompt, answer="")],
        bind(config),
        engine=Lines(policy, **options),
        scorer=None,
        verify=toys.verify,
        settings=settings,
    )
    return result


def said(result: SearchResult, budget: int) -> tuple[str | None, int, bool, int]:
    """The answer, the tokens of thought, whether it was cut, and its extensions."""
    snapshot = result.at(budget)
    assert snapshot.answer_node is not None
    counts = thought_counts(result.nodes, snapshot.answer_node)
    return snapshot.answer, counts.tokens, counts.cut, counts.extensions


def test_a_thought_is_cut_after_its_last_whole_line(toys: Any) -> None:
    result = run(toys, ThinkingConfig(budgets=(5, 8, 13, 16, 17, 25, 40)))
    assert said(result, 5) == ("<think>\n</think>\n0", 0, True, 0)
    assert said(result, 8) == ("<think>\n</think>\n0", 8, True, 0)
    assert said(result, 13) == ("<think>\nab\n</think>\n1", 11, True, 0)
    assert said(result, 16) == ("<think>\nab\ncd\n</think>\n2", 14, True, 0)
    # The closing tag ends at 25 tokens. With less than that it is not there yet.
    assert said(result, 17) == (FIRST + "3", 17, True, 0)
    assert said(result, 25) == said(result, 40) == (FIRST + "3", 17, False, 0)
    assert not any(snapshot.truncated for snapshot in result.snapshots)
    assert result_from_json(result_to_json(result, "p")) == result


def test_the_cost_at_a_budget_is_that_of_a_run_with_this_budget_alone(toys: Any) -> None:
    result = run(toys, ThinkingConfig(budgets=(13, 25, 40)))

    def usage(prompt: int, generated: int, sequences: int) -> ModelUsage:
        return ModelUsage(prompt_tokens=prompt, generated_tokens=generated, sequences=sequences)

    # 13 tokens; then the prompt (2), 11 tokens of thought, 9 of closing words, "1" and its end
    assert result.at(13).usage.policy == usage(2 + 22, 13 + 2, 2)
    # The thought is closed after 25 tokens, and the other 3 of the solution follow.
    assert result.at(25).usage.policy == usage(2 + 27, 25 + 3, 2)
    assert result.at(40).usage.policy == usage(2, 28, 1)
    assert result.usage.policy == usage(2 + 22, 28 + 2, 2)  # what the run really spent
    for budget in (13, 25, 40):
        alone = run(toys, ThinkingConfig(budgets=(budget,)))
        assert alone.usage == alone.at(budget).usage == result.at(budget).usage


def test_a_short_thought_goes_on_after_the_cue(toys: Any) -> None:
    config = ThinkingConfig(budgets=(20, 27, 40), least_thinking_tokens=20, cue="W\n")
    result = run(toys, config)
    assert said(result, 40) == ("<think>\nab\ncd\nef\nW\ngh\n</think>\n4", 22, False, 1)
    # At 27 tokens the second closing tag does not fit, at 20 the first one does not.
    assert said(result, 27) == ("<think>\nab\ncd\nef\nW\ngh\n</think>\n4", 22, True, 1)
    assert said(result, 20) == (FIRST + "3", 17, True, 0)
    for budget in (20, 27, 40):
        alone = run(toys, dataclasses.replace(config, budgets=(budget,)))
        assert said(alone, budget) == said(result, budget)
        assert alone.usage == result.at(budget).usage
    twice = run(toys, dataclasses.replace(config, budgets=(40,), least_thinking_tokens=27))
    assert said(twice, 40) == ("<think>\nab\ncd\nef\nW\ngh\nW\ngh\n</think>\n5", 27, False, 2)
    once = run(
        toys, dataclasses.replace(config, budgets=(40,), least_thinking_tokens=27, extensions=1)
    )
    assert said(once, 40)[1:] == (22, False, 1)
    # 2 + 28 for the first sample, 21 and 13 (its 3 + 9 + 1 tokens and the end) for the second
    spent = result.at(40).usage.policy
    assert (spent.prompt_tokens, spent.generated_tokens) == (2 + 21, 28 + 14)


def test_a_cue_that_is_never_used_need_not_be_known(
    toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = toys.Engine.encode

    def without_cue(self: Any, text: str) -> Any:
        if text == ThinkingConfig.cue:
            raise ValueError("'W' is not in the vocabulary")
        return encode(self, text)

    monkeypatch.setattr(toys.Engine, "encode", without_cue)
    assert said(run(toys, ThinkingConfig(budgets=(40,))), 40)[0] is not None
    with pytest.raises(ValueError, match="'W' is not in the vocabulary"):
        run(toys, ThinkingConfig(budgets=(40,), least_thinking_tokens=30))


def test_forced_tokens_have_no_proposal_and_no_log_probability(toys: Any) -> None:
    def unsure(text: str) -> dict[str, float]:
        [letter] = scripted(text)
        return {letter: 0.5, "~": 0.5} if letter in "abcdef" else {letter: 1.0}

    settings = dataclasses.replace(GREEDY, temperature=0.0)
    [result] = run_searches(
        [Problem(id="p", prompt="?>", answer="")],
        bind(ThinkingConfig(budgets=(13, 40))),
        engine=toys.Engine(unsure),  # every letter is a step
        scorer=None,
        verify=toys.verify,
        settings=settings,
    )
    leaf = result.at(13).answer_node
    assert leaf is not None
    assert result.at(13).answer == "<think>\nab\nc" + "d"[:1] + "\n</think>\n2"
    path = [node for node in result.nodes if node.proposals == 0 and node.id]
    assert [node.text for node in path] == ["\n</think>\n"]
    assert path[0].logprob == 0.0
    thought = result.nodes[result.nodes[leaf].parent].parent
    # 4 letters of the cut thought ("abcd") have probability 1/2; "think" has none of a to f.
    assert result.nodes[thought].logprob == pytest.approx(4 * math.log(0.5))


def test_other_ends_of_thoughts(toys: Any) -> None:
    def direct(text: str) -> dict[str, float]:
        return {"x" if not text else ".": 1.0}

    answered = run(toys, ThinkingConfig(budgets=(5, 40)), policy=direct)
    assert said(answered, 5) == said(answered, 40) == ("x", 0, False, 0)
    longer = run(toys, ThinkingConfig(budgets=(1,)), policy=lambda text: {"xyz."[len(text)]: 1.0})
    assert said(longer, 1) == ("xyz", 0, False, 0)

    def ends_inside(text: str) -> dict[str, float]:
        if "</think>" in text:
            return scripted(text)
        return {("<think>\nab\n" + ".")[len(text)]: 1.0}

    ended = run(toys, ThinkingConfig(budgets=(40,)), policy=ends_inside)
    assert said(ended, 40) == ("<think>\nab\n</think>\n1", 11, True, 0)
    assert 0 not in solution_ids(ended.nodes, ended.at(40).answer_node or 0)[:-1]

    # The prompt opens the thought, so no second <think> is forced.
    def opened(text: str) -> dict[str, float]:
        return scripted("<think>\n" + text)

    prompted = run(
        toys,
        ThinkingConfig(budgets=(2, 20)),
        policy=lambda text: opened(text[len("<think>\n") :]),
        prompt="?><think>\n",
    )
    assert said(prompted, 2) == ("</think>\n0", 0, True, 0)
    assert said(prompted, 20) == (FIRST.removeprefix("<think>\n") + "3", 9, False, 0)


def test_an_answer_that_the_context_or_the_limit_cuts_off_is_truncated(toys: Any) -> None:
    cut = run(toys, ThinkingConfig(budgets=(13,), answer_tokens=1))
    assert cut.at(13).truncated
    assert cut.nodes[cut.at(13).answer_node or 0].terminal is StopReason.LENGTH
    full = run(toys, ThinkingConfig(budgets=(13,)), context_length=20)
    assert full.at(13).truncated
    assert full.nodes[full.at(13).answer_node or 0].terminal is StopReason.CONTEXT
    # 26 tokens reach the end of the closing words; the answer is sampled in a second request.
    more = run(toys, ThinkingConfig(budgets=(26,)))
    assert said(more, 26) == (FIRST + "3", 17, False, 0)
    assert not more.at(26).truncated


def test_chains_vote_and_smaller_budgets_equal_runs_of_their_own(toys: Any) -> None:
    def noisy(text: str) -> dict[str, float]:
        if "</think>\n" in text:
            return scripted(text)
        if text.startswith("<think>\n") and text.endswith("\n"):
            return {"a": 0.9, "<": 0.1}
        line = text.rpartition("\n")[2]
        if line.startswith("<") or not text:
            return {"<think>\n"[len(line)] if not text.startswith("<think>\n") else
                    "</think>\n"[len(line)]: 1.0}  # fmt: skip
        return {"b" if len(line) == 1 else "\n": 1.0}

    settings = SearchSettings(answer="majority")
    config = ThinkingConfig(budgets=(8, 14, 60), chains=9)
    result = run(toys, config, policy=noisy, settings=settings)
    answers = {(result.at(b).answer or "")[-1] for b in config.budgets}
    assert result.at(8).answer == "<think>\n</think>\n0"
    assert len(answers) > 1
    for budget in (8, 14):
        alone = run(
            toys, dataclasses.replace(config, budgets=(budget,)), policy=noisy, settings=settings
        )
        assert alone.at(budget).answer == result.at(budget).answer
        assert alone.usage == alone.at(budget).usage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"closing": "done"}, "it must hold </think>"),
        ({"cue": "</think>"}, "without </think>"),
        ({"chains": 0}, "chains is 0"),
        ({"least_thinking_tokens": 9, "budgets": (8, 16)}, "smallest of budgets, 8"),
    ],
)
def test_refused_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThinkingConfig(**changes)
