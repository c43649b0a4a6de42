"""A finished search as an answer: what is shown, what stays reasoning, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.thoughts import split_solution
from data.types import Problem, Usage
from search.base import SearchResult, solution_ids
from search.trees.files import result_to_json
from trainer.searching.engines import SearchEngine
from trainer.searching.solve import Thought, think_over


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of one search, for choice `index`.

    `reasoning` and `content` together are the solution, if the request asked for the reasoning:
    `content` is then its last step. Else `reasoning` is empty, and `content` is the solution
    without its thought. `answer_tokens` are those of the sampled tokens that `content` holds.
    """

    index: int
    content: str
    reasoning: str
    finish_reason: str
    answer_tokens: int
    thought: Thought
    usage: Usage
    tree: dict[str, Any]


def answer_of(
    result: SearchResult,
    engine: SearchEngine,
    final_answer: Callable[[Problem, str], str],
    *,
    index: int,
    policy: str,
    with_reasoning: bool,
) -> Answer:
    thought = think_over(result, engine, final_answer, None, 0.0)
    solution = thought.answer or ""
    content = split_solution(solution).answer or ""
    reasoning = ""
    if with_reasoning:
        last = _last_step(thought.steps, content)
        content = solution[solution.rindex(last) :] if last else ""
        reasoning = solution[: len(solution) - len(content)]
    node = result.snapshots[-1].answer_node if result.snapshots else None
    if node is None:  # the greedy completion of an open path, which may write any token
        ids = engine.tokenizer.encode(solution, add_special_tokens=False)
    else:
        ids = solution_ids(result.nodes, node)
    return Answer(
        index=index,
        content=content,
        reasoning=reasoning,
        finish_reason="stop" if thought.finished else "length",
        answer_tokens=_tokens_of_end(engine, ids, len(content)),
        thought=thought,
        usage=result.usage,
        tree=result_to_json(result, policy),
    )


def _last_step(steps: Sequence[str], content: str) -> str:
    """The last step with text, if `content` ends with it; else all of `content`."""
    text = next((step.strip() for step in reversed(steps) if step.strip()), "")
    return text if text and content.rstrip().endswith(text) else content


def _tokens_of_end(engine: SearchEngine, ids: Sequence[int], characters: int) -> int:
    """How many of the last tokens hold the last `characters` of the text, with the end token."""
    if not characters:
        return 0
    low, high = 0, len(ids)  # the text from `low` on is long enough
    while high - low > 1:
        middle = (low + high) // 2
        if len(engine.decode(ids[middle:])) >= characters:
            low = middle
        else:
            high = middle
    return len(ids) - low
