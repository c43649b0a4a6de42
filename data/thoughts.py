"""Thoughts in a solution: `<think>`, what the policy thinks, `</think>`, then the answer part.

Chat templates may put `<think>` into the prompt. So a text is also thought and answer when it has
only the closing tag.
"""

from __future__ import annotations

from dataclasses import dataclass

THOUGHT_START = "<think>"
THOUGHT_END = "</think>"


@dataclass(frozen=True, kw_only=True)
class SplitSolution:
    """A solution's two parts. `thought` is None in a solution without a thought. `answer` is None
    when the thought does not end. Both are without the tags."""

    thought: str | None
    answer: str | None


def split_solution(solution: str) -> SplitSolution:
    """The thought is the text up to the last `</think>`. One line break after that tag belongs to
    it. A text that begins with `<think>` and never closes it has no answer. Every other text is an
    answer alone."""
    before, closed, after = solution.rpartition(THOUGHT_END)
    if closed:
        return SplitSolution(thought=_without_start(before), answer=after.removeprefix("\n"))
    if solution.lstrip().startswith(THOUGHT_START):
        return SplitSolution(thought=_without_start(solution), answer=None)
    return SplitSolution(thought=None, answer=solution)


def with_thought(thought: str, answer: str) -> str:
    """The solution with these two parts. Each tag stands on a line of its own."""
    return f"{THOUGHT_START}\n{thought.strip()}\n{THOUGHT_END}\n{answer}"


def _without_start(text: str) -> str:
    stripped = text.lstrip()
    if not stripped.startswith(THOUGHT_START):
        return text
    return stripped.removeprefix(THOUGHT_START).removeprefix("\n")
