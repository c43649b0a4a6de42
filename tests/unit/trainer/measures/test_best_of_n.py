"""Best of N over all subsets of a pool: by hand, and by going through every subset."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from trainer.measures.best_of_n import (
    Candidate,
    best_of_n,
    expected_best,
    expected_pass,
    kl_of_best_of_n,
    powers_of_two,
)


def candidate(score: float, correct: bool, count: int = 1, finished: bool = True) -> Candidate:
    return Candidate(rank=(float(finished), score), proxy=score, correct=correct, count=count)


POOL = [candidate(0.9, False), candidate(0.6, True), candidate(0.3, True), candidate(0.1, False)]


def test_expected_best_by_hand() -> None:
    # The best of the 6 pairs: 0.9 in 3, 0.6 in 2, 0.3 in 1.
    gold, proxy = expected_best(POOL, 2)
    assert gold == pytest.approx((3 * 0 + 2 * 1 + 1 * 1) / 6)
    assert proxy == pytest.approx((3 * 0.9 + 2 * 0.6 + 1 * 0.3) / 6)
    assert expected_best(POOL, 1) == pytest.approx((2 / 4, 1.9 / 4))
    assert expected_best(POOL, 4) == pytest.approx((0.0, 0.9))
    with pytest.raises(ValueError, match="n is 5; the pool has only 4 samples"):
        expected_best(POOL, 5)


def test_equal_ranks_share_and_unfinished_ones_come_last() -> None:
    # Three of rank 0.8, one of them right: chosen in all pairs but none; each equally often.
    tied = [candidate(0.8, True), candidate(0.8, False, count=2), candidate(0.2, True)]
    # Pairs with one of the three: all 6 of C(4, 2); P(right) = 1/3.
    assert expected_best(tied, 2)[0] == pytest.approx(1 / 3)
    cut_off = [candidate(0.99, False, finished=False), candidate(0.1, True)]
    assert expected_best(cut_off, 2) == pytest.approx((1.0, 0.1))


def test_expectations_are_those_over_every_subset() -> None:
    generator = random.Random(2)
    for _ in range(20):
        pool = [
            candidate(generator.choice([0.1, 0.5, 0.7, 0.9]), generator.random() < 0.5)
            for _ in range(7)
        ]
        for n in range(1, 8):
            gold, solved = [], []
            for subset in itertools.combinations(pool, n):
                top = max(c.rank for c in subset)
                best = [c.correct for c in subset if c.rank == top]
                gold.append(sum(best) / len(best))
                solved.append(any(c.correct for c in subset))
            assert expected_best(pool, n)[0] == pytest.approx(sum(gold) / len(gold))
            correct = sum(c.correct for c in pool)
            assert expected_pass(7, correct, n) == pytest.approx(sum(solved) / len(solved))


def test_the_estimate_is_unbiased_for_fresh_samples() -> None:
    """A pool of 6 from a known distribution gives, on average, best of 3 of that distribution."""
    outcomes = [(0.9, False), (0.5, True), (0.2, False)]  # drawn with 0.2, 0.3 and 0.5
    # Right: no 0.9 and some 0.5 among three: 0.8^3 - 0.5^3.
    truth = 0.8**3 - 0.5**3
    generator = random.Random(3)
    found = []
    for _ in range(4000):
        drawn = generator.choices(outcomes, weights=[0.2, 0.3, 0.5], k=6)
        found.append(expected_best([candidate(*o) for o in drawn], 3)[0])
    assert sum(found) / len(found) == pytest.approx(truth, abs=0.02)


def test_kl_and_pass_by_hand() -> None:
    assert kl_of_best_of_n(1) == 0.0
    assert kl_of_best_of_n(4) == pytest.approx(math.log(4) - 3 / 4)
    # The divergence of the best of n uniform numbers, density n u^(n-1): an integral in closed form
    step = 1e-5
    density = [4 * (step * (i + 0.5)) ** 3 for i in range(100_000)]
    divergence = sum(p * math.log(p) for p in density) * step
    assert divergence == pytest.approx(kl_of_best_of_n(4), abs=1e-4)
    assert expected_pass(10, 3, 2) == pytest.approx(1 - (7 * 6) / (10 * 9))
    assert expected_pass(4, 0, 4) == 0.0 and expected_pass(4, 1, 4) == 1.0
    assert powers_of_two(256)[-1] == 256 and powers_of_two(100)[-1] == 64


def test_rows_and_over_optimisation_by_hand() -> None:
    good = [
        candidate(0.9, True),
        candidate(0.6, True),
        candidate(0.3, False),
        candidate(0.1, False),
    ]
    rows, loss = best_of_n("last", [POOL, good], ["a", "b"], most=4)
    assert [row.n for row in rows] == [1, 2, 4]
    # POOL: 1/2, 1/2, 0; good: 1/2, 5/6 (all pairs but 0.3 with 0.1), 1
    assert [row.gold.value for row in rows] == pytest.approx([1 / 2, (1 / 2 + 5 / 6) / 2, 1 / 2])
    assert [row.uplift.value for row in rows] == pytest.approx([0, 1 / 6, 0])
    assert rows[1].kl == pytest.approx(math.log(2) - 0.5)
    assert rows[2].proxy.value == pytest.approx(0.9)
    # From 2 to 4: POOL loses 1/2, good wins 1/6.
    assert (loss.best_n, loss.last_n) == (2, 4)
    assert loss.last_minus_best.value == pytest.approx((-1 / 2 + 1 / 6) / 2)
    # deviations +-1/3 of two clusters: variance of the mean 2 x (2/9) / 4 = 1/9
    assert loss.last_minus_best.high - loss.last_minus_best.value == pytest.approx(1.959964 / 3)
