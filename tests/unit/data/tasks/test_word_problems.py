"""Word problems: templates by hand, splits by template, and every written solution judged."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from data.contamination import cross_overlaps
from data.tasks.word_problems import WordProblemsConfig, WordProblemsTask
from data.tasks.word_templates import fill_in, parse_templates
from data.tasks.word_templates_held_out import TEST, VALIDATION
from data.tasks.word_templates_train import TRAIN
from data.types import Demonstration, Outcome
from rewards.verifiers.math_answers import MathVerifier

ALL = (*TRAIN, *VALIDATION, *TEST)
FAMILIES = {
    "shopping", "travel", "sharing", "ages", "work", "mixtures", "collections", "savings",
    "school", "garden",
}  # fmt: skip
SIZES = {"demonstrations": 120, "train": 200, "validation": 48, "test": 100}
WORK = re.compile(r"([0-9]+) ([-+*/]) ([0-9]+) = ([0-9]+)")
PENS = """
pens | shopping | a 3-3, b 4-4, c 7-7
{person} buys {a} pens for {b} dollars each
and a card for {c} dollars. How many dollars is that?
x = a * b | The pens cost {x} dollars.
y = x + c | For {person} that is {y} dollars.
"""


def task(**fields: Any) -> WordProblemsTask:
    return WordProblemsTask(config=WordProblemsConfig(**fields))


def test_a_template_by_hand() -> None:
    [pens] = parse_templates(PENS)
    assert (pens.name, pens.family) == ("pens", "shopping")
    made = fill_in(pens, random.Random(1), 100)
    name = made.question.split()[0]
    assert made.question == (
        f"{name} buys 3 pens for 4 dollars each and a card for 7 dollars. How many dollars is that?"
    )
    assert made.solution == (
        f"The pens cost 3 * 4 = 12 dollars.\nFor {name} that is 12 + 7 = 19 dollars."
    )
    assert (made.answer, made.numbers) == (19, (3, 4, 7))
    with pytest.raises(ValueError, match="max_value is 18: the template 'pens' has no numbers"):
        fill_in(pens, random.Random(1), 18)
    with pytest.raises(ValueError, match=r"'pens \| shopping' does not begin a template"):
        parse_templates("pens | shopping\nWhy?\nx = a + b | That is {x}.")


def test_numbers_are_drawn_until_every_step_is_allowed() -> None:
    [shared] = parse_templates(
        "s | sharing | a 2-9, b 2-9, c 2-9\n{a}, {b}, {c}?\nx = a - b | {x}\ny = x / c | {y}"
    )
    rng = random.Random(2)
    for _ in range(200):
        made = fill_in(shared, rng, 100)
        a, b, c = made.numbers
        assert a > b and (a - b) % c == 0 and made.answer == (a - b) // c


def test_held_out_numbers_are_in_no_other_side() -> None:
    """All sides have the templates of training. A small template runs out of problems, and the
    others go on."""
    sizes = {"demonstrations": 1800, "train": 400, "validation": 240, "test": 500}
    made = task(held_out="numbers", max_value=60).make_splits(3, **sizes)
    sides = [
        {p.group for p in (*(d.problem for d in made.demonstrations), *made.train)},
        {p.group for p in made.validation},
        {p.group for p in made.test},
    ]
    templates = {template.name for template in TRAIN}
    for side in sides:
        assert {str(group).partition(":")[0] for group in side} == templates
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert [len(made.demonstrations), len(made.train)] == [1800, 400]
    assert [len(made.validation), len(made.test)] == [240, 500]
    prompts = [d.problem.prompt for d in made.demonstrations] + [p.prompt for p in made.train]
    assert len(set(prompts)) == 2200
    problem = made.test[7]
    assert problem.group == f"{str(problem.group).partition(':')[0]}: " + " ".join(
        map(str, problem.numbers or ())
    )
    solution = task(held_out="numbers", max_value=60).demonstrate(problem, random.Random(1))
    assert solution.endswith(f"#### {problem.answer}")


def test_templates_are_well_made() -> None:
    assert (len(TRAIN), len(VALIDATION), len(TEST)) == (40, 12, 20)
    assert len({template.name for template in ALL}) == len(ALL)
    assert len({template.question for template in ALL}) == len(ALL)
    for side in (TRAIN, VALIDATION, TEST):
        assert {template.family for template in side} == FAMILIES
        assert {len(template.steps) for template in side} == {2, 3}
    for template in ALL:
        drawn = [name for name, _, _ in template.ranges]
        places = set(re.findall(r"{([a-z])}", template.question))
        used = {operand for step in template.steps for operand in (step.left, step.right)}
        assert places == set(drawn) and "|" not in template.question, template.name
        results = [step.name for step in template.steps]
        assert results == ["x", "y", "z"][: len(results)], template.name
        # Every number and every result but the last is used.
        assert {*drawn, *results[:-1]} <= used, template.name
        assert all(f"{{{step.name}}}" in step.text for step in template.steps), template.name


def sides(made: Any) -> dict[str, list[Any]]:
    return {
        "training": [*(d.problem for d in made.demonstrations), *made.train],
        "validation": list(made.validation),
        "test": list(made.test),
    }


@pytest.mark.parametrize("seed", [1, 2, 17])
def test_templates_of_test_are_never_trained_on(seed: int) -> None:
    made = task().make_splits(seed, **SIZES)
    assert made == task().make_splits(seed, **SIZES)
    found = sides(made)
    assert {name: {p.group for p in side} for name, side in found.items()} == {
        "training": {t.name for t in TRAIN},
        "validation": {t.name for t in VALIDATION},
        "test": {t.name for t in TEST},
    }
    problems = [problem for side in found.values() for problem in side]
    assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == sum(SIZES.values())
    assert set(Counter(p.group for p in made.test).values()) == {5}
    questions = {name: {p.id: p.prompt for p in side} for name, side in found.items()}
    assert cross_overlaps(questions, ["validation", "test"], 0.7) == []


def test_more_problems_begin_with_the_same_ones() -> None:
    few = task().make_splits(3, demonstrations=10, train=0, validation=5, test=5)
    many = task().make_splits(3, demonstrations=30, train=9, validation=9, test=9)
    assert many.demonstrations[:10] == few.demonstrations
    assert many.test[:5] == few.test
    other = task().make_splits(4, demonstrations=10, train=0, validation=5, test=5)
    assert other.test != few.test


def every_problem() -> list[Demonstration]:
    """Demonstrations of all templates; those of validation and test by `demonstrate`."""
    ours = task()
    made = ours.make_splits(5, demonstrations=200, train=0, validation=60, test=100)
    return [
        *made.demonstrations,
        *(
            Demonstration(problem=p, solution=ours.demonstrate(p, random.Random()))
            for p in (*made.validation, *made.test)
        ),
    ]


def test_every_written_solution_is_right_and_a_changed_answer_is_wrong() -> None:
    verifier = MathVerifier()
    for made in every_problem():
        assert verifier.verify(made.problem, made.solution).outcome is Outcome.CORRECT
        steps, _, answer = made.solution.rpartition("#### ")
        assert answer == made.problem.answer
        for wrong in (int(answer) + 1, int(answer) * 10, -int(answer)):
            changed = f"{steps}#### {wrong}"
            assert verifier.verify(made.problem, changed).outcome is Outcome.WRONG, changed


def test_every_step_is_true_and_uses_what_is_known() -> None:
    operations = {
        "+": lambda a, b: a + b, "-": lambda a, b: a - b,
        "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    }  # fmt: skip
    for made in every_problem():
        known = {int(number) for number in re.findall(r"[0-9]+", made.problem.prompt)} | {2}
        *lines, last = made.solution.split("\n")
        assert len(lines) in (2, 3)
        result = 0
        for line in lines:
            [(left, operator, right, said)] = WORK.findall(line)
            result = int(said)
            assert operations[operator](int(left), int(right)) == result
            assert {int(left), int(right)} <= known, made.solution
            assert 1 <= result <= 100
            known.add(result)
        assert last == f"#### {result}"
        assert "{" not in made.problem.prompt + made.solution


def test_steps_and_max_value_choose_the_difficulty() -> None:
    for steps in (2, 3):
        made = task(steps=(steps,)).make_splits(1, demonstrations=40, train=0, validation=0, test=0)
        assert {d.solution.count("\n") for d in made.demonstrations} == {steps}
    sizes = {"demonstrations": 80, "train": 0, "validation": 24, "test": 40}
    small = task(max_value=60).make_splits(1, **sizes)
    values = [int(n) for d in small.demonstrations for n in re.findall(r"[0-9]+", d.solution)]
    assert max(values) <= 60 and len(small.test) == 40


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(ValueError, match="max_value is 59; it must be at least 60"):
        WordProblemsConfig(max_value=59)
    with pytest.raises(ValueError, match=r"steps is \[1, 2\]; it must hold 2, 3 or both"):
        WordProblemsConfig(steps=(1, 2))
    with pytest.raises(ValueError, match="prompt is 'boxd'; allowed: question, boxed"):
        WordProblemsConfig(prompt="boxd")
    with pytest.raises(ValueError, match="train is -1; allowed: 0 or more"):
        task().make_splits(1, demonstrations=0, train=-1, validation=0, test=0)
    [problem] = task().make_splits(1, demonstrations=0, train=1, validation=0, test=0).train
    for other in (replace(problem, group="none"), replace(problem, answer="0")):
        with pytest.raises(ValueError, match="was not made with these settings"):
            task().demonstrate(other, random.Random())
