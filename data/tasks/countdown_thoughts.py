"""Countdown demonstrations that think first: a real search for a solution, written down line by
line (data/tasks/countdown_lines.py), and then the answer as plain steps.

The problems are those of the task countdown with the same keys and seed. The search may go into
dead ends and come back, so the policy sees mistakes being corrected (Stream of Search, 2404.03683).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from data.progress import reported
from data.settings import did_you_mean
from data.tasks.base import Splits
from data.tasks.countdown import OPERATORS, CountdownConfig, apply, demonstrate, parse_step
from data.tasks.countdown_lines import (
    BEHAVIOURS,
    check_line,
    joined_numbers,
    step_line,
)
from data.tasks.countdown_splits import make_splits
from data.thoughts import with_thought
from data.types import Demonstration, Problem

SEARCHES = ("depth_first", "best_first")
ATTEMPTS = 30  # searches tried per trace before the trace goes straight to a solution
Heuristic = Callable[[Sequence[int], int], float]


def _nearest(numbers: Sequence[int], target: int) -> float:
    return min(abs(number - target) for number in numbers)


def _factors(numbers: Sequence[int], target: int) -> float:
    """The smallest distance of a number to a divisor of the target above 1, or to the target."""
    divisors = [d for d in range(2, target + 1) if target % d == 0] or [target]
    return min(abs(number - d) for number in numbers for d in divisors)


def _sum(numbers: Sequence[int], target: int) -> float:
    return abs(sum(numbers) - target)


HEURISTICS: dict[str, Heuristic] = {"nearest": _nearest, "factors": _factors, "sum": _sum}


@dataclass(frozen=True, kw_only=True)
class CountdownThoughtsConfig(CountdownConfig):
    """Countdown problems whose demonstrations think before they answer.

    Each thought writes down one search. The search and its heuristic are drawn from the lists with
    equal chance. A search that finds no solution within the limits is drawn again. After 30 draws
    the thought goes straight to a solution, so every demonstration is correct.

    `behaviours` maps a behaviour to the chance that a place for it is used; absent: 1. The
    behaviours are analysis, decomposition, alternative, evaluation and correction. For
    `alternative` it is the chance per thought that the search may try another way from the same
    numbers; a thought without it goes straight to a solution. Without `correction` the thought does
    not say that it goes back.
    """

    search_kinds: tuple[str, ...] = ("depth_first",)
    """Kinds of search that thoughts write down: depth_first, best_first."""
    heuristics: tuple[str, ...] = ("nearest",)
    """Orders in which a search tries operations: nearest, factors, sum."""
    noise: float = 4.0
    """Largest random number added to an operation's value; it makes searches differ."""
    width: int = 4
    """Operations tried at most from the same numbers."""
    least_tries: int = 1
    """Operations that a thought carries out at least."""
    most_tries: int = 12
    """Operations that a thought carries out at most."""
    behaviours: dict[str, float] = field(default_factory=lambda: {"decomposition": 0.25})
    """Chance of each behaviour's lines, in [0, 1]; a behaviour that is not named has 1."""
    leave_out: str | None = None
    """Behaviour that no thought shows, to measure what it is worth; null: none."""
    traces_per_problem: int = 1
    """Demonstrations per problem, each with a new thought; one epoch then sees each once."""
    first_trace: int = 0
    """Number of a problem's first thought; 15 gives others than the first 15 of each problem."""

    def __post_init__(self) -> None:
        super().__post_init__()
        optional = tuple(name for name in BEHAVIOURS if name != "completion")
        for key, names, allowed in (
            ("search_kinds", self.search_kinds, SEARCHES),
            ("heuristics", self.heuristics, tuple(HEURISTICS)),
            ("behaviours", tuple(self.behaviours), optional),
            ("leave_out", (self.leave_out,) if self.leave_out is not None else (), optional),
        ):
            for name in names:
                if name not in allowed:
                    raise ValueError(
                        f"{key} has {name!r}; {did_you_mean(name, allowed)}allowed: "
                        f"{', '.join(allowed)}"
                    )
            if key in ("search_kinds", "heuristics") and not names:
                raise ValueError(f"{key} is empty; allowed: {', '.join(allowed)}")
        for name, chance in self.behaviours.items():
            if type(chance) not in (int, float) or not 0 <= chance <= 1:
                raise ValueError(f"behaviours gives {name} {chance!r}; it must be in [0, 1]")
        if not self.noise >= 0:
            raise ValueError(f"noise is {self.noise}; it must not be negative")
        for name in ("width", "least_tries", "traces_per_problem"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.first_trace < 0:
            raise ValueError(f"first_trace is {self.first_trace}; it must not be negative")
        if self.most_tries < self.least_tries:
            raise ValueError(
                f"most_tries is {self.most_tries}; it must be at least least_tries, "
                f"{self.least_tries}"
            )

    def chance(self, behaviour: str) -> float:
        """The chance that a place for the behaviour is used."""
        return 0.0 if behaviour == self.leave_out else self.behaviours.get(behaviour, 1.0)


@dataclass(frozen=True, kw_only=True)
class CountdownThoughtsTask:
    """Implements `data.tasks.base.Task`."""

    config: CountdownThoughtsConfig
    name: str = "countdown_thoughts"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        """The problems of the task countdown. Every problem has `traces_per_problem`
        demonstrations: first one of each problem, then a second one of each, and so on. A trace
        depends on the seed, its problem and its number alone."""
        splits = make_splits(
            self.config,
            seed,
            demonstrations=demonstrations,
            train=train,
            validation=validation,
            test=test,
        )
        problems = [demonstration.problem for demonstration in splits.demonstrations]
        first = self.config.first_trace
        traces = [
            Demonstration(
                problem=problem,
                solution=self.demonstrate(
                    problem, random.Random(f"{seed} thought {number} {problem.id}")
                ),
            )
            for number in range(first, first + self.config.traces_per_problem)
            for problem in reported(problems, "thoughts")
        ]
        return replace(splits, demonstrations=tuple(traces))

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        """A thought and the answer that it found. Raises ValueError when there is no solution."""
        found: _Trace | None = None
        if rng.random() < self.config.chance("alternative"):
            for _ in range(ATTEMPTS):
                found = _Trace(problem, self.config, rng)
                if found.search():
                    break
                found = None
        if found is None:
            found = _Trace(problem, self.config, rng)
            found.follow(demonstrate(problem, rng, max_value=self.config.max_value))
        return with_thought("\n".join(found.lines), "\n".join(found.answer()))


@dataclass(slots=True, kw_only=True)
class _Place:
    """Numbers that the search has reached by `step` from the place `parent` (-1: the start).
    `moves` are the operations worth trying, the best first, each as (value, step's text, numbers
    after it). The first `tried` of them were tried."""

    parent: int
    step: str
    numbers: tuple[int, ...]
    moves: list[tuple[float, str, tuple[int, ...]]]
    tried: int = 0

    @property
    def open(self) -> bool:
        return self.tried < len(self.moves)


class _Trace:
    """One search for a solution, and the lines that say what it does."""

    def __init__(
        self, problem: Problem, config: CountdownThoughtsConfig, rng: random.Random
    ) -> None:
        self._config, self._rng = config, rng
        self._target = int(problem.answer)
        self._best_first = rng.choice(config.search_kinds) == "best_first"
        self._heuristic = HEURISTICS[rng.choice(config.heuristics)]
        self._places: list[_Place] = []
        self._at = 0
        self.lines: list[str] = []
        self._say("analysis", f"numbers {joined_numbers(problem.numbers)} target {self._target}")
        self._reach(-1, "", problem.numbers)

    def search(self) -> bool:
        """Search until the target is reached. Returns whether it was, within the limits."""
        tries = 0
        while tries < self._config.most_tries:
            place = self._next()
            if place is None:
                return False
            if place != self._at:
                self._go_back(place)
                continue
            tries += 1
            at = self._places[place]
            _, step, numbers = at.moves[at.tried]
            word = "instead" if at.tried else "try"
            at.tried += 1
            if self._carry_out(word, step, numbers):
                return tries >= self._config.least_tries
        return False

    def follow(self, solution: str) -> None:
        """Carry out the steps of a known solution."""
        for line in solution.split("\n"):
            step = parse_step(line)
            assert step is not None
            self._carry_out("try", line, step.remaining)

    def answer(self) -> list[str]:
        """The steps from the start to where the search is."""
        steps: list[str] = []
        place = self._places[self._at]
        while place.parent >= 0:
            steps.append(place.step)
            place = self._places[place.parent]
        return steps[::-1]

    def _carry_out(self, word: str, step: str, numbers: tuple[int, ...]) -> bool:
        """Write the step and go to its numbers. Returns whether the target is reached."""
        self.lines.append(f"{word} {step}")
        result = numbers[-1]
        self._say("evaluation", check_line(result, self._target))
        self._reach(self._at, step, numbers)
        return result == self._target

    def _next(self) -> int | None:
        """The place to go on from: the one with the best operation that is left, or in a
        depth-first search this place or else its parent. None: the search has nothing left."""
        if self._best_first:
            places = [i for i, place in enumerate(self._places) if place.open]
            key = {i: self._places[i].moves[self._places[i].tried][0] for i in places}
            return min(places, key=key.__getitem__, default=None)
        here = self._places[self._at]
        if here.open:
            return self._at
        return here.parent if here.parent >= 0 else None

    def _go_back(self, place: int) -> None:
        here = self._places[self._at]
        reason = "spent" if len(here.numbers) == 1 else "far" if here.open else "tried"
        self._at = place
        numbers = joined_numbers(self._places[place].numbers)
        self._say("correction", f"{reason} back {numbers}")

    def _reach(self, parent: int, step: str, numbers: tuple[int, ...]) -> None:
        """Make a place of `numbers`, perhaps with a goal, and go to it."""
        self._at = len(self._places)
        goal = None
        goals = _goals(numbers, self._target, self._config.max_value)
        if numbers[-1] != self._target or parent < 0:
            chance = self._config.chance("decomposition")
            if len(numbers) > 2 and goals and self._rng.random() < chance:
                goal, operation = self._rng.choice(goals)
                self.lines.append(f"goal {goal} | {self._target} = {operation}")
        moves = self._moves(numbers, goal) if len(numbers) > 1 else []
        place = _Place(parent=parent, step=step, numbers=numbers, moves=moves)
        self._places.append(place)

    def _moves(
        self, numbers: tuple[int, ...], goal: int | None
    ) -> list[tuple[float, str, tuple[int, ...]]]:
        """The operations worth trying, the best first. With a goal, an operation is also good when
        its result is near the goal."""
        found: dict[tuple[int, str, int], tuple[float, str, tuple[int, ...]]] = {}
        for i in range(len(numbers)):
            for j in range(i + 1, len(numbers)):
                large, small = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
                rest = [number for k, number in enumerate(numbers) if k not in (i, j)]
                for operator in OPERATORS:
                    result = apply(large, operator, small)
                    if result is None or result > self._config.max_value:
                        continue
                    if (large, operator, small) in found:
                        continue
                    after = (*rest, result)
                    value = self._heuristic(after, self._target)
                    if goal is not None:
                        value = min(value, abs(result - goal))
                    value += self._rng.random() * self._config.noise
                    step = step_line(large, operator, small, result, after)
                    found[large, operator, small] = (value, step, after)
        return sorted(found.values())[: self._config.width]

    def _say(self, behaviour: str, line: str) -> None:
        if self._rng.random() < self._config.chance(behaviour):
            self.lines.append(line)


def _goals(numbers: tuple[int, ...], target: int, max_value: int) -> list[tuple[int, str]]:
    """Numbers that give the target in one operation with one of `numbers`, and the operation."""
    found: dict[int, str] = {}
    for number in sorted(set(numbers)):
        candidates = [
            (target - number, f"{max(number, target - number)} + {min(number, target - number)}"),
            (target + number, f"{target + number} - {number}"),
            (number - target, f"{number} - {number - target}"),
            (target * number, f"{target * number} / {number}"),
        ]
        if target % number == 0:
            other = target // number
            candidates.append((other, f"{max(number, other)} * {min(number, other)}"))
        for goal, operation in candidates:
            if 1 <= goal <= max_value and goal != target:
                found.setdefault(goal, operation)
    return sorted(found.items())
