"""Draws without replacement against all sequences of toy distributions, counted by brute force."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from data.types import TokenDraws
from search.token_trie import TokenTrie, Walk

Options = Callable[[tuple[int, ...]], dict[int, float]]
END = 0


def two_letters(prefix: tuple[int, ...]) -> dict[int, float]:
    """After 1 come 1, 2 or the end; after 2 comes 1 or the end; at most two letters. The five
    sequences 11., 12., 1., 21., 2. have the probabilities .3, .12, .18, .1, .3."""
    if len(prefix) == 2:
        return {END: 1.0}
    if not prefix:
        return {1: 0.6, 2: 0.4}
    return {1: 0.5, 2: 0.2, END: 0.3} if prefix == (1,) else {1: 0.25, END: 0.75}


FIVE = {(1, 1, 0): 0.3, (1, 2, 0): 0.12, (1, 0): 0.18, (2, 1, 0): 0.1, (2, 0): 0.3}


def sampled(options: Options, walk: Walk, rng: random.Random) -> tuple[list[int], TokenDraws]:
    """What an engine gives for a walk: tokens, and the probability with which each was drawn."""
    tokens: list[int] = []
    drawn: list[float] = []
    while END not in tokens:
        allowed = options(walk.prefix + tuple(tokens))
        if not tokens:
            allowed = {t: p for t, p in allowed.items() if t not in walk.excluded}
        total = math.fsum(allowed.values())
        [token] = rng.choices(list(allowed), list(allowed.values()))
        tokens.append(token)
        drawn.append(0.0 if len(allowed) == 1 else math.log(allowed[token] / total))
    depths = [float(len(walk.prefix) + i) for i in range(len(tokens))]
    draws = TokenDraws(logprobs=tuple(depths), entropies=tuple(depths), draw_logprobs=tuple(drawn))
    return tokens, draws


def draw(
    trie: TokenTrie, options: Options, rng: random.Random, start: tuple[int, ...] = ()
) -> tuple[int, ...]:
    walk = trie.walk(lambda _: rng.random(), start)
    drawn = trie.add(walk, *sampled(options, walk, rng))
    assert drawn is not None
    # The numbers of tokens that were drawn before come from the trie: here, their depths.
    assert drawn.logprobs == drawn.entropies == tuple(map(float, range(len(drawn.token_ids))))
    return drawn.token_ids


def test_pairs_have_the_probabilities_of_sampling_without_replacement() -> None:
    """P(x, then y) = p(x) p(y) / (1 - p(x)), for all 20 pairs: a chi-square test."""
    rng, n = random.Random(0), 20_000
    found: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for _ in range(n):
        trie = TokenTrie()
        found[draw(trie, two_letters, rng), draw(trie, two_letters, rng)] += 1
    expected = {(x, y): n * FIVE[x] * FIVE[y] / (1 - FIVE[x]) for x in FIVE for y in FIVE if x != y}
    assert set(found) == set(expected)
    chi_square = sum((found[pair] - e) ** 2 / e for pair, e in expected.items())
    assert chi_square < 36.2  # 99 % of a chi-square distribution with 19 degrees of freedom


def test_draws_below_a_place_are_those_of_its_own_distribution() -> None:
    """Below the place (1,) there are the shares .5, .2, .3. The first draw is from the root."""
    rng, n = random.Random(1), 20_000
    found: Counter[tuple[int, ...]] = Counter()
    expected: dict[tuple[int, ...], float] = {}
    shares = {(1, 1, 0): 0.5, (1, 2, 0): 0.2, (1, 0): 0.3}
    for _ in range(n):
        trie = TokenTrie()
        first = draw(trie, two_letters, rng)
        if first[0] != 1:
            continue
        found[draw(trie, two_letters, rng, (1,))] += 1
        for other in shares.keys() - {first}:
            chance = shares[other] / (1 - shares[first])
            expected[other] = expected.get(other, 0.0) + chance
    chi_square = sum((found[x] - e) ** 2 / e for x, e in expected.items())
    assert chi_square < 9.2  # 99 % with 2 degrees of freedom


@pytest.mark.parametrize("seed", range(10))
def test_every_sequence_is_drawn_once_and_the_mass_left_is_exact(seed: int) -> None:
    rng, trie = random.Random(seed), TokenTrie()
    assert trie.left() == 1.0
    drawn: list[tuple[int, ...]] = []
    for _ in FIVE:
        drawn.append(draw(trie, two_letters, rng))
        assert trie.left() == pytest.approx(1 - sum(FIVE[x] for x in drawn), abs=1e-15)
    assert set(drawn) == set(FIVE)
    assert trie.left() == 0.0  # exactly: nothing is left by rounding
    assert trie.left((1,)) == trie.left((2,)) == 0.0
    for sequence, probability in FIVE.items():
        assert trie.probability(sequence) == pytest.approx(probability, rel=1e-12)
    assert trie.probability((1,)) == pytest.approx(0.6)
    with pytest.raises(AssertionError, match="probability that is left"):
        trie.walk(lambda _: 0.5)


def test_a_round_of_draws_without_its_repetitions_is_exact_too() -> None:
    """Rounds of 3 draws from the same state. The first two distinct sequences are counted."""
    rng, n = random.Random(2), 10_000
    found: Counter[tuple[tuple[int, ...], ...]] = Counter()
    repetitions = 0
    for _ in range(n):
        trie, order = TokenTrie(), list[tuple[int, ...]]()
        while len(order) < 2:
            walks = [trie.walk(lambda _: rng.random()) for _ in range(3)]
            for walk in walks:
                result = trie.add(walk, *sampled(two_letters, walk, rng))
                repetitions += result is None
                order += [] if result is None else [result.token_ids]
        assert trie.left() == pytest.approx(1 - sum(FIVE[x] for x in order), abs=1e-12)
        found[tuple(order[:2])] += 1
    pairs = itertools.permutations(FIVE, 2)
    expected = {(x, y): n * FIVE[x] * FIVE[y] / (1 - FIVE[x]) for x, y in pairs}
    assert repetitions > 0 and set(found) == set(expected)
    chi_square = sum((found[pair] - e) ** 2 / e for pair, e in expected.items())
    assert chi_square < 36.2


def test_a_small_rest_is_kept_exactly() -> None:
    """Two draws at one place, each of 1 - 1e-9 of what there was. The mass that is left has all of
    its digits, where a difference to 1 would have lost them."""
    small, trie = 1e-9, TokenTrie()
    draws = TokenDraws(
        logprobs=(0.0, 0.0), entropies=(0.0, 0.0), draw_logprobs=(math.log1p(-small), 0.0)
    )
    trie.add(trie.walk(lambda _: 0.5), (1, END), draws)
    assert trie.left() == pytest.approx(small, rel=1e-12)
    walk = trie.walk(lambda _: 0.5)
    assert walk == Walk(prefix=(), excluded=(1,), unseen=trie.left())
    trie.add(walk, (2, END), draws)
    assert trie.left() == pytest.approx(small * small, rel=1e-12)
    assert trie.probability((2,)) == pytest.approx(small * (1 - small), rel=1e-12)
