"""The operations of a Countdown search tree: what its steps do, without false and repeated ones.

A node of a search tree is a step or a whole solution, sampled from a policy. It may be false, and
several nodes may carry out the same operation on the same numbers. Here every line is replayed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from data.tasks.countdown import CountdownStep, parse_prompt, parse_step
from data.tasks.countdown_replay import numbers_and_target, replay_step
from search.base import SearchResult


@dataclass(frozen=True, kw_only=True)
class Place:
    """Numbers that the search reached by the step `step` from the place `parent` (-1: the start).
    `result` is the step's result; 0 at the start, as no step has this result. `solution` says
    whether a finished correct solution ends here."""

    parent: int
    step: str
    result: int
    numbers: tuple[int, ...]
    children: tuple[int, ...]
    solution: bool


@dataclass(frozen=True, kw_only=True)
class OperationTree:
    """The places of a search in the order in which it created them; place 0 is the start.

    `false_steps` counts the lines that were left out because they, or a line before them, are
    false. As in `first_false_step` of data/tasks/countdown_replay.py, a step that reaches the
    target is false too where the solution does not end with it. `repeated_steps` counts the lines
    that carry out an operation which an earlier line carried out at the same place.
    """

    places: tuple[Place, ...]
    target: int
    false_steps: int
    repeated_steps: int

    @property
    def solutions(self) -> list[int]:
        """The places where a correct solution ends, the first one found first."""
        return [id for id, place in enumerate(self.places) if place.solution]

    def path_to(self, place: int) -> list[int]:
        """The places from the first step down to `place`. The path does not include the start."""
        path: list[int] = []
        while place > 0:
            path.append(place)
            place = self.places[place].parent
        return path[::-1]


def operations_of(result: SearchResult) -> OperationTree:
    """Replay all nodes of a tree, also those of rollouts. `7 + 4` and `4 + 7` are one operation.

    Raises ValueError for a problem of another task than Countdown.
    """
    problem = result.problem
    if parse_prompt(problem.prompt) is None:
        raise ValueError(
            f"problem {problem.id!r} has the prompt {problem.prompt[:80]!r}; only the steps of "
            "Countdown, with prompts such as '3 4 7 12 -> 24\\n', can be replayed"
        )
    replay = _Replay(*numbers_and_target(problem))
    ends: list[int | None] = []  # where each node ends; None: after a false line
    for node in result.nodes:
        at = 0 if node.parent < 0 else ends[node.parent]
        if node.text and node.parent > 0 and not result.nodes[node.parent].text.endswith("\n"):
            at = None  # the line of the node before goes on, so neither is a step
        at = replay.follow(at, _lines(node.text))
        ends.append(at)
        if node.finished and at:
            replay.finish(at)
    return replay.tree()


def _lines(text: str) -> list[str]:
    """The lines of a node. A line break ends the last one, as the verifier reads solutions."""
    return text.removesuffix("\n").split("\n") if text else []


class _Replay:
    """Carries out the lines of a tree. `_moves` finds a place by the one before it and by its
    operation. `_lines` counts the lines that led to a place."""

    def __init__(self, numbers: tuple[int, ...], target: int) -> None:
        self._target = target
        start = Place(parent=-1, step="", result=0, numbers=numbers, children=(), solution=False)
        self._places = [start]
        self._moves: dict[tuple[int, int, str, int], int] = {}
        self._lines = Counter[int]()
        self._ends: set[int] = set()
        self._false = 0

    def follow(self, at: int | None, lines: list[str]) -> int | None:
        """Carry out the lines from the place `at`. Returns where they lead, or None after a false
        line."""
        for line in lines:
            at = None if at is None else self._carry_out(at, line)
            self._false += at is None
        return at

    def finish(self, at: int) -> None:
        """Note that a solution, which may be wrong, ends at this place."""
        self._ends.add(at)

    def tree(self) -> OperationTree:
        """The places, without those that reach the target where no solution ends."""
        reached = [id for id, place in enumerate(self._places) if place.result == self._target]
        out = set(reached) - self._ends  # nothing is below them
        kept = [id for id in range(len(self._places)) if id not in out]
        new = {id: i for i, id in enumerate(kept)}
        children: list[list[int]] = [[] for _ in kept]
        for id in kept[1:]:
            children[new[self._places[id].parent]].append(new[id])
        return OperationTree(
            places=tuple(
                replace(
                    self._places[id],
                    parent=new.get(self._places[id].parent, -1),
                    children=tuple(children[new[id]]),
                    solution=self._places[id].result == self._target,
                )
                for id in kept
            ),
            target=self._target,
            false_steps=self._false + sum(self._lines[id] for id in out),
            repeated_steps=sum(self._lines[id] - 1 for id in kept[1:]),
        )

    def _carry_out(self, at: int, line: str) -> int | None:
        place, step = self._places[at], parse_step(line)
        if step is None or place.result == self._target:
            return None
        if replay_step(step, Counter(place.numbers)) is not None:
            return None
        found = self._moves.setdefault(_operation(at, step), len(self._places))
        self._lines[found] += 1
        if found == len(self._places):
            reached = replace(
                place, parent=at, step=line, result=step.result, numbers=step.remaining
            )
            self._places.append(reached)
        return found


def _operation(at: int, step: CountdownStep) -> tuple[int, int, str, int]:
    left, right = step.left, step.right
    if step.operator in "+*" and left < right:
        left, right = right, left
    return at, left, step.operator, right
