"""Generated puzzles of the library reasoning-gym (2505.24760): 92 of its 106 kinds (0.1.19).

The other kinds are refused. Their scorers evaluate the text of an answer as Python, so a model's
answer could be a program.

The library is an optional extra: `pip install thinktree[reasoning-gym]`. The `answer` of a problem
identifies the puzzle. So `rewards.verifiers.puzzles` can score a solution with the library's own
scorer.
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
from data.tasks.base import Splits, check_sizes
from data.types import Demonstration, Problem

RUNS_TEXT = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")


@dataclass(frozen=True, kw_only=True)
class ReasoningGymConfig:
    """Which puzzles of the library reasoning-gym are made."""

    dataset: str
    """Kind of puzzle, by its name in the library."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """The library's settings for this kind, without seed and size."""
    prompt: str = "hash"
    """Style of the prompt, one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template is applied to the prompts; null: no chat template."""
    thinking: bool | None = None
    """enable_thinking of the chat template, as in Qwen3; null: the template's own choice."""

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; allowed: {', '.join(PROMPTS)}")
        for name in ("seed", "size"):
            if name in self.options:
                raise ValueError(f"options holds {name!r}; the task itself sets this option")


@dataclass(frozen=True, kw_only=True)
class GymPuzzle:
    """One puzzle. `Problem.answer` holds it as JSON.

    It is puzzle `index` of a data set of `size` puzzles that the library makes with `seed`.
    `expected` is its expected answer as text, or "" when the library knows none.
    """

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
        """Read the text that `to_answer` writes. Raises ValueError for any other text."""
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
    """Implements `data.tasks.base.Task`. The library has no worked solutions, so a demonstration is
    only the answer after its mark. For some kinds of puzzles the library knows no answer; these
    have no demonstrations."""

    config: ReasoningGymConfig
    name: str = "reasoning_gym"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        sizes = {"test": test, "validation": validation, "train": train}
        sizes["demonstrations"] = demonstrations
        check_sizes(**sizes)
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
        """The first `wanted` distinct puzzles of a data set twice as large. Raises ValueError when
        there are fewer, and for a kind whose scorer evaluates text."""
        size = max(1, 2 * wanted)
        seed = library_seed(seed)
        puzzles = gym_dataset(self.config.dataset, self.config.options, seed, size)
        if runs_text(puzzles):
            raise ValueError(
                f"dataset {self.config.dataset!r} cannot be verified: its scorer evaluates the "
                "text of an answer as Python, and a model writes that text"
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
            prompt=render(
                question, self.config.prompt, self.config.chat_model, self.config.thinking
            ),
            answer=puzzle.to_answer(),
            group=question,
        )
        return Demonstration(problem=problem, solution=f"#### {puzzle.expected}")


def library_seed(seed: int) -> int:
    """The seed for the library, a hash of `seed`. The library makes puzzle `index` from
    `seed + index`, so without the hash, neighbouring seeds would make nearly the same puzzles."""
    digest = hashlib.sha256(f"{seed} puzzles".encode()).digest()
    return int.from_bytes(digest[:8]) % 2**31


def runs_text(puzzles: Any) -> bool:
    """Whether the module of the scorer evaluates text as Python. If it does, an answer could be a
    program."""
    kind: Any = puzzles.__class__
    module = sys.modules.get(kind.__module__)
    return module is None or RUNS_TEXT.search(inspect.getsource(module)) is not None


def gym_dataset(name: str, options: dict[str, Any], seed: int, size: int) -> Any:
    """A data set of the library. Raises ValueError when the library is not installed, for an
    unknown name and for options that the library does not accept."""
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
