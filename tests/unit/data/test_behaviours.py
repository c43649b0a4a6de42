"""Detectors of reasoning behaviours: patterns on sentences labelled by hand, Countdown exactly."""

from __future__ import annotations

from collections import Counter

import pytest

from data.behaviours import BEHAVIOURS, behaviour_rates, behaviours_in_text, behaviours_of_sentence
from data.tasks.countdown import make_problem
from data.thoughts import with_thought
from data.types import Problem

# a: analysis, d: decomposition, c: completion, l: alternative, e: evaluation, r: correction.
# Sentences in the manner of published long thoughts, labelled by what a reader says they do.
LETTERS = dict(zip("adcler", BEHAVIOURS, strict=True))
LABELLED = """
a|Okay, so I need to find the number of ways to arrange the letters.
a|The problem asks for the probability that both balls are red.
a|We are given a triangle with sides 13, 14 and 15.
a|Let me first understand what is being asked.
a|So what do we know about the function?
a|Let's restate the question in our own words.
a|The question is asking for the remainder, not the quotient.
a|The goal here is to reach 24 with the four numbers.
a|Two trains leave stations A and B, and I should note both speeds are in km/h.
d|First, I will handle the even numbers.
d|Let's break the region down into two triangles.
d|We can split this into three cases.
d|Case 2: x is negative.
d|Step 1: compute the radius.
d|My plan is to get the area and then divide by the height.
d|Working backwards, the last operation has to be a multiplication.
d|This reduces to a smaller subproblem.
d|Before the total, I want the cost per item.
c|12 * 3 = 36.
c|So 45 + 17 = 62 apples.
c|Substituting x = 2 gives y = 7.
c|Simplifying, we get x^2 - 4 = 0.
c|That is 100 divided by 4, which equals 25.
c|Subtract 5 from both sides to get 2x = 10.
c|Expanding the product yields x^2 + 5x + 6.
c|Then 3(4) = 12 miles are left.
l|Alternatively, we could use the law of cosines.
l|Is there another way to see this?
l|Let me try a different approach.
l|What if we multiply 12 by 3 instead?
l|Or maybe we use induction on n.
l|One more idea: use generating functions.
l|Instead, let me count the complement.
l|We could also parametrize the curve.
l|There might be a slicker route via symmetry.
e|Let me check this with n = 3.
e|To verify, plug it back into the equation.
e|Does that make sense?
e|I should double-check the arithmetic.
e|Hmm, is that right?
e|That seems too large for a probability.
e|So the answer checks out.
e|I'm not sure if the series converges.
e|A quick sanity check with small numbers works.
e|19 is below 24, so we are still short.
r|Wait, I forgot the factor of two.
r|No, that's not right.
r|Oops, the sign is flipped.
r|I made a mistake in the second line.
r|That doesn't work because 7 is used twice.
r|Let me go back to 3, 4, 7 and 12.
r|Actually, no, the order matters here.
r|This is a dead end.
r|Hmm, wait, the radius is 5 and not 10.
r|On second thought, x cannot be zero.
r|The sum above should be 18, not 16.
er|Wait, does this work for negative x?
lr|That doesn't work, so let's try another method.
dc|First, 7 - 4 = 3.
-|The train has to wait at the station for ten minutes.
-|The waiter brought the check to the table.
-|Maria adds a new stamp to her album every week.
-|There are 12 red and 3 blue marbles in the bag.
-|The answer is 42.
-|He walked back home after school.
-|The first train leaves at noon.
-|Each case of juice holds 24 bottles.
-|The verdict was correct in the end.
-|An actual example is shown in the figure.
-|They planned a trip with 5 friends.
-|A different number of students came on Monday.
-|Let ABC be a triangle with a right angle at C.
-|Therefore the number of divisors is even.
-|The second factor is a prime number.
-|She made a cake and an apple pie.
-|We want to find a new home for the cat.
-|First, second and third prizes were awarded.
-|Step 5 of the old stairs is broken.
-|An alternative fuel costs more per mile.
-|Checking accounts pay 2 percent a year.
-|Wait times average five minutes at the gate.
-|He said that this was wrong of his neighbour.
"""
# Measured on the sentences above: (true positives, false positives, false negatives).
EXPECTED = {
    "analysis": (8, 1, 1),
    "decomposition": (9, 2, 1),
    "completion": (8, 0, 1),
    "alternative": (9, 1, 1),
    "evaluation": (10, 1, 1),
    "correction": (12, 2, 1),
}


def test_precision_and_recall_of_the_patterns() -> None:
    counts = {name: Counter[str]() for name in BEHAVIOURS}
    for row in LABELLED.strip().splitlines():
        labels, _, sentence = row.partition("|")
        truth = {LETTERS[letter] for letter in labels if letter != "-"}
        found = behaviours_of_sentence(sentence)
        for name in BEHAVIOURS:
            counts[name][f"{name in truth}{name in found}"] += 1
    measured = {n: (c["TrueTrue"], c["FalseTrue"], c["TrueFalse"]) for n, c in counts.items()}
    assert measured == EXPECTED


def test_sentences_of_a_text() -> None:
    text = "We need to find x.\nFirst, 7 - 4 = 3. Wait, that's wrong! Is 3.5 enough? Yes"
    assert behaviours_in_text(text) == Counter(
        analysis=1, decomposition=1, completion=1, correction=1
    )


def test_long_text_takes_linear_time() -> None:
    assert sum(behaviours_in_text("break " * 100_000).values()) == 0
    assert behaviours_in_text("wait, " * 20_000)["correction"] == 1


def test_rates_of_countdown_are_exact() -> None:
    problem = make_problem((3, 4, 7, 12), 36)
    thought = "numbers 3 4 7 12 target 36\ntry 3 + 4 = 7 | 7 12 7\nfar back 3 4 7 12\n"
    thought += "instead 12 * 3 = 36 | 4 7 36\ncheck 36 = 36\ncheck 35 = 36"
    rates = behaviour_rates(
        [
            (problem, with_thought(thought, "12 * 3 = 36 | 4 7 36")),
            (problem, "12 * 3 = 36 | 4 7 36"),
        ]
    )
    assert rates.thoughts == 0.5
    assert rates.false_lines == pytest.approx(1 / 6)
    assert rates.per_solution == {
        "analysis": 0.5, "decomposition": 0.0, "completion": 1.0, "alternative": 0.5,
        "evaluation": 1.0, "correction": 0.5,
    }  # fmt: skip
    assert rates.shown["completion"] == 0.5
    assert rates.metrics()["behaviours/evaluation_per_solution"] == 1.0


def test_rates_of_free_text() -> None:
    problem = Problem(id="p", prompt="Question: 2 + 2?\n", answer="4")
    rates = behaviour_rates(
        [(problem, with_thought("Wait, no.", "2 + 2 = 4")), (problem, "2 + 2 = 4")]
    )
    assert (rates.shown["correction"], rates.shown["completion"]) == (0.5, 0.5)
    assert rates.false_lines is None
    with pytest.raises(ValueError, match="no solution"):
        behaviour_rates([])
