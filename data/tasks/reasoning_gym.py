"""Generated puzzles of the library reasoning-gym (2505.24760): 92 of its 106 kinds (0.1.19).

The scorers of the others evaluate the text of an answer as Python, which makes an answer a program:
they are refused.

An optional extra: `pip install thinktree[reasoning-gym]`. A problem's `answer` says which puzzle it
is, so that the library's own scorer can be asked about an answer (`rewards.verifiers.puzzles`).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import random
import re
import sys
from dataclasses import dataclass, field
from typing import Any, cast

from data.prompts import PROMPTS, render
from data.tasks.base import Splits
from data.types import Demonstration, Problem

RUNS_TEXT = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")


@dataclass(frozen=True, kw_only=True)
class ReasoningGymConfig:
    """Which puzzles of the library reasoning-gym are made."""

    dataset: str
    """The library's name of a kind of puzzle."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """The library's settings of that kind, without seed and size."""
    prompt: str = "hash"
    """Style in which a question is put; one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template the prompts get; null: none."""

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; allowed: {', '.join(PROMPTS)}")
        for name in ("seed", "size"):
            if name in self.options:
                raise ValueError(f"options holds {name!r}: it is worked out from the splits' sizes")


@dataclass(frozen=True, kw_only=True)
class GymPuzzle:
    """What `Problem.answer` holds, as JSON: puzzle `index` of a data set of `size` puzzles made
    with `seed`, and its expected answer as text, "" where the library knows none."""

    dataset: str
    options: dict[str, Any]
    seed: int
    size: int
    index: int
    expected: str

    def to_answer(self) -> str:
        return json.dumps(vars(self), sort_keys=True)

    @staticmethod
    def from_answer(answer: str) -> GymPuzzle:
        """Raises ValueError for anything but what `to_answer` writes."""
        values: Any = json.loads(answer)
        if not isinstance(values, dict):
            raise ValueError("is not a JSON object")
        try:
            puzzle = GymPuzzle(**cast("dict[str, Any]", values))
        except TypeError as error:
            raise ValueError(f"is no puzzle: {error}") from None
        kinds = {"dataset": str, "options": dict, "seed": int, "size": int, "index": int}
        for name, kind in {**kinds, "expected": str}.items():
            if not isinstance(getattr(puzzle, name), kind):
                raise ValueError(f"{name} is {getattr(puzzle, name)!r}; it must be {kind.__name__}")
        return puzzle


@dataclass(frozen=True, kw_only=True)
class ReasoningGymTask:
    """Implements `data.tasks.base.Task`. The library has no worked solutions: a demonstration is
    the answer alone, behind its mark. Of kinds whose puzzles have several answers the library knows
    none, so they have no demonstrations."""

    config: ReasoningGymConfig
    name: str = "reasoning_gym"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        sizes = {"test": test, "validation": validation, "train": train}
        sizes["demonstrations"] = demonstrations
        for name, size in sizes.items():
            if size < 0:
                raise ValueError(f"{name} is {size}; allowed: 0 or more")
        found = self._distinct(seed, sum(sizes.values()))
        at = 0
        parts: dict[str, list[Demonstration]] = {}
        for name, size in sizes.items():
            parts[name] = found[at : at + size]
            at += size
        for d in parts["demonstrations"]:
            self.demonstrate(d.problem, random.Random())
        return Splits(
            demonstrations=tuple(parts["demonstrations"]),
            train=tuple(d.problem for d in parts["train"]),
            validation=tuple(d.problem for d in parts["validation"]),
            test=tuple(d.problem for d in parts["test"]),
        )

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        """Raises ValueError for a puzzle without an expected answer."""
        expected = GymPuzzle.from_answer(problem.answer).expected
        if not expected:
            raise ValueError(
                f"dataset {self.config.dataset!r} has no answers to show, so it has no "
                "demonstrations; ask for 0"
            )
        return f"#### {expected}"

    def _distinct(self, seed: int, wanted: int) -> list[Demonstration]:
        """The first `wanted` distinct puzzles of a data set twice as large. Raises ValueError for a
        kind whose scorer is refused."""
        size = max(1, 2 * wanted)
        seed = library_seed(seed)
        puzzles = gym_dataset(self.config.dataset, self.config.options, seed, size)
        if runs_text(puzzles):
            raise ValueError(
                f"dataset {self.config.dataset!r} cannot be verified: its scorer evaluates the "
                "text of an answer, which a model wrote, as Python"
            )
        found: dict[str, Demonstration] = {}
        for index in range(size):
            if len(found) == wanted:
                break
            entry = puzzles[index]
            question = str(entry["question"])
            if question not in found:
                found[question] = self._demonstration(question, entry, seed, size, index)
        if len(found) < wanted:
            raise ValueError(
                f"the splits ask for {wanted} puzzles; {self.config.dataset!r} with options "
                f"{self.config.options} made {len(found)} distinct ones out of {size}"
            )
        return list(found.values())

    def _demonstration(
        self, question: str, entry: dict[str, Any], seed: int, size: int, index: int
    ) -> Demonstration:
        puzzle = GymPuzzle(
            dataset=self.config.dataset,
            options=self.config.options,
            seed=seed,
            size=size,
            index=index,
            expected="" if entry["answer"] is None else str(entry["answer"]),
        )
        problem = Problem(
            id=f"{self.config.dataset}-{seed}-{index}",
            prompt=render(question, self.config.prompt, self.config.chat_model),
            answer=puzzle.to_answer(),
            group=question,
        )
        return Demonstration(problem=problem, solution=f"#### {puzzle.expected}")


def library_seed(seed: int) -> int:
    """The library makes puzzle `index` from `seed + index`, so seeds next to each other would make
    nearly the same puzzles."""
    digest = hashlib.sha256(f"{seed} puzzles".encode()).digest()
    return int.from_bytes(digest[:8]) % 2**31


def runs_text(puzzles: Any) -> bool:
    """Whether the scorer's module evaluates text: then an answer could be a program."""
    kind: Any = puzzles.__class__
    module = sys.modules.get(kind.__module__)
    return module is None or RUNS_TEXT.search(inspect.getsource(module)) is not None


def gym_dataset(name: str, options: dict[str, Any], seed: int, size: int) -> Any:
    """Raises ValueError where the library is not installed, for an unknown name and for options
    that it does not take."""
    try:
        library: Any = importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ValueError(
            "task reasoning_gym needs the library: pip install 'thinktree[reasoning-gym]'"
        ) from error
    try:
        return library.create_dataset(name, seed=seed, size=size, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"dataset {name!r} with options {options}: {error}") from error
