"""Word problems of two and three steps, made from templates with written solutions.

"Anna buys 3 pens for 4 dollars each and a card for 7 dollars. How many dollars does Anna spend?"
has the solution

    The pens cost 3 * 4 = 12 dollars.
    Together that is 12 + 7 = 19 dollars.
    #### 19

Each of the ten families (shopping, travel, sharing, ages, work, mixtures, collections, savings,
school, garden) has templates of its own in training, in validation and in test. A template belongs
to one of these sides for every seed, so the templates of test are never trained on. The group of a
problem is its template: intervals count the problems of a template as one cluster.

`held_out: numbers` asks for less: all sides have the templates of training, and the numbers of a
problem of validation or test occur with its template in no other side. The group of a problem is
then its template with its numbers.

The library reasoning-gym also has word problems with steps (`gsm_symbolic`, read in 0.1.25). It
draws them from 11 templates, and neither the template nor the number of steps can be chosen, so it
cannot hold templates out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from data.prompts import PROMPTS, render
from data.tasks.base import Splits, check_sizes
from data.tasks.word_templates import WordTemplate, fill_in
from data.tasks.word_templates_held_out import TEST, VALIDATION
from data.tasks.word_templates_train import TRAIN
from data.types import Demonstration, Problem

SMALLEST_MAX_VALUE = 60  # every template has many problems with numbers up to here
HELD_OUT = ("templates", "numbers")
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of a template's numbers, with `numbers`
MAX_REPETITIONS = 1000  # problems of a template that were there already, one after another


@dataclass(frozen=True, kw_only=True)
class WordProblemsConfig:
    """Which word problems are made, and the form of their prompts.

    Raises ValueError for a value that is not allowed. The message names the field.
    """

    steps: tuple[int, ...] = (2, 3)
    """Steps of a solution: templates with these numbers of steps are used, 2 and 3."""
    held_out: str = "templates"
    """What validation and test do not share with training: templates, or numbers of a template."""
    max_value: int = 100
    """Largest number in a problem and in its steps, at least 60."""
    prompt: str = "question"
    """Style of the prompt, one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template is applied to the prompts; null: no chat template."""
    thinking: bool | None = None
    """enable_thinking of the chat template, as in Qwen3; null: the template's own choice."""

    def __post_init__(self) -> None:
        if not self.steps or not set(self.steps) <= {2, 3}:
            raise ValueError(f"steps is {list(self.steps)}; it must hold 2, 3 or both")
        if self.max_value < SMALLEST_MAX_VALUE:
            raise ValueError(
                f"max_value is {self.max_value}; it must be at least {SMALLEST_MAX_VALUE}"
            )
        if self.held_out not in HELD_OUT:
            raise ValueError(f"held_out is {self.held_out!r}; allowed: {', '.join(HELD_OUT)}")
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; allowed: {', '.join(PROMPTS)}")


@dataclass(frozen=True, kw_only=True)
class WordProblemsTask:
    """Implements `data.tasks.base.Task`. The id of a problem says how it was drawn."""

    config: WordProblemsConfig
    name: str = "word_problems"

    def make_splits(
        self, seed: int, *, demonstrations: int, train: int, validation: int, test: int
    ) -> Splits:
        check_sizes(demonstrations=demonstrations, train=train, validation=validation, test=test)
        by_numbers = self.config.held_out == "numbers"
        validating, testing = (TRAIN, TRAIN) if by_numbers else (VALIDATION, TEST)
        training = self._made(TRAIN, "train", seed, demonstrations + train)
        return Splits(
            demonstrations=tuple(training[:demonstrations]),
            train=tuple(d.problem for d in training[demonstrations:]),
            validation=tuple(
                d.problem for d in self._made(validating, "validation", seed, validation)
            ),
            test=tuple(d.problem for d in self._made(testing, "test", seed, test)),
        )

    def demonstrate(self, problem: Problem, rng: random.Random) -> str:
        """The written solution; a problem has one. Raises ValueError for a problem that this task
        did not make."""
        for template in (*TRAIN, *VALIDATION, *TEST):
            if template.name == problem.group.partition(":")[0]:
                made = self._draw(template, problem.id)
                if made.problem == problem:
                    return made.solution
        raise ValueError(f"problem {problem.id!r} was not made with these settings")

    def _made(
        self, templates: Sequence[WordTemplate], side: str, seed: int, wanted: int
    ) -> list[Demonstration]:
        """Distinct problems of a side, with one of every template in turn. If numbers are held out,
        a template that has no more problems is left out. Raises ValueError if there are too few."""
        used = [t for t in templates if len(t.steps) in self.config.steps]
        sources = [self._distinct(template, side, seed) for template in used]
        made: list[Demonstration] = []
        while len(made) < wanted:
            for source in tuple(sources)[: wanted - len(made)]:
                try:
                    made.append(next(source))
                except ValueError:
                    if self.config.held_out == "templates" or len(sources) == 1:
                        raise
                    sources.remove(source)
        return made

    def _distinct(self, template: WordTemplate, side: str, seed: int) -> Iterator[Demonstration]:
        """The problems of a template for a side, without repetitions. Raises ValueError when there
        are no more."""
        seen: set[str] = set()
        number = since_new = 0
        while since_new < MAX_REPETITIONS:
            made = self._draw(template, f"{template.name}-{seed}-{number}")
            number, since_new = number + 1, since_new + 1
            if self._is_of(side, made.problem) and made.problem.prompt not in seen:
                since_new = 0
                seen.add(made.problem.prompt)
                yield made
        raise ValueError(
            f"the template {template.name!r} has no more than about {len(seen)} problems with "
            f"max_value {self.config.max_value}: ask for fewer problems"
        )

    def _is_of(self, side: str, problem: Problem) -> bool:
        """Whether the problem belongs to the side, by its group, if numbers are held out."""
        if self.config.held_out == "templates":
            return True
        place = random.Random(problem.group).random()
        return side == next(
            name
            for name, end in zip(SHARES, accumulate(SHARES.values()), strict=True)
            if place < end or name == "test"
        )

    def _draw(self, template: WordTemplate, identifier: str) -> Demonstration:
        """The problem of an id; the same for every run."""
        drawn = fill_in(template, random.Random(identifier), self.config.max_value)
        config = self.config
        prompt = render(drawn.question, config.prompt, config.chat_model, config.thinking)
        problem = Problem(
            id=identifier,
            prompt=prompt,
            answer=str(drawn.answer),
            group=self._group(template, drawn.numbers),
            numbers=drawn.numbers,
        )
        return Demonstration(problem=problem, solution=f"{drawn.solution}\n#### {drawn.answer}")

    def _group(self, template: WordTemplate, numbers: Sequence[int]) -> str:
        if self.config.held_out == "templates":
            return template.name
        return f"{template.name}: {' '.join(map(str, numbers))}"
