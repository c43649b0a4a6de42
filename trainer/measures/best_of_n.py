"""Computes best of N by a reward model, for every N, from one pool of M samples per problem.

Best of N is the exact average over all subsets of N of the M samples. This is unbiased for N fresh
samples, and it has no noise from the choice of one subset. Samples of equal rank are chosen equally
often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from trainer.measures.statistics import Estimate, mean_estimate, share_estimate


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """`count` equal samples. Best of N chooses the largest `rank`. `proxy` is the sample's
    score."""

    rank: tuple[float, ...]
    proxy: float
    correct: bool
    count: int


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """Means over problems. `gold` is the accuracy of the chosen samples. `uplift` is `gold` minus
    the mean accuracy of a sample. `proxy` is the mean score of the chosen samples. `kl` is in
    nats."""

    aggregate: str
    n: int
    kl: float
    gold: Estimate
    uplift: Estimate
    proxy: Estimate


@dataclass(frozen=True, kw_only=True)
class OverOptimisation:
    """The paired change of gold accuracy from the best N (the smallest one, if several are equal)
    to the largest N. The best N is chosen on the same problems, so chance makes the loss look
    larger."""

    aggregate: str
    best_n: int
    last_n: int
    last_minus_best: Estimate


@lru_cache(maxsize=64)
def shares_without(total: int, n: int) -> tuple[float, ...]:
    """Index k holds C(k, n) / C(total, n): the share of the subsets of n of `total` samples that
    contain only samples from k given ones."""
    every = math.comb(total, n)
    return tuple(math.comb(k, n) / every for k in range(total + 1))


def expected_best(candidates: Sequence[Candidate], n: int) -> tuple[float, float]:
    """Expected correctness and proxy of best of n. If `above` samples have a higher rank and g
    samples have this rank, one of these g is chosen in C(M - above, n) - C(M - above - g, n) of the
    subsets.

    Raises ValueError if the pool is smaller than n.
    """
    total = sum(c.count for c in candidates)
    if not 1 <= n <= total:
        raise ValueError(f"n is {n}; the pool has only {total} samples")
    within = shares_without(total, n)
    gold, proxy, left = 0.0, 0.0, total
    ranked = sorted(candidates, key=lambda c: c.rank, reverse=True)
    for _, group in groupby(ranked, key=lambda c: c.rank):
        equals = list(group)
        size = sum(c.count for c in equals)
        share = within[left] - within[left - size]
        gold += share * sum(c.count for c in equals if c.correct) / size
        proxy += share * math.fsum(c.count * c.proxy for c in equals) / size
        left -= size
    return gold, proxy


def expected_pass(total: int, correct: int, n: int) -> float:
    """pass@n: 1 - C(total - correct, n) / C(total, n) (Chen et al. 2021, 2107.03374)."""
    return 1.0 - shares_without(total, n)[total - correct]


def kl_of_best_of_n(n: int) -> float:
    """log n - (n - 1)/n, in nats: the divergence of best of n from the policy if no two samples
    have the same score, otherwise an upper bound (Stiennon et al. 2020; 2401.01879)."""
    return math.log(n) - (n - 1) / n


def powers_of_two(most: int) -> tuple[int, ...]:
    return tuple(1 << k for k in range(most.bit_length()))


def best_of_n(
    aggregate: str, pools: Sequence[Sequence[Candidate]], groups: Sequence[str], most: int
) -> tuple[list[BestOfN], OverOptimisation]:
    """Rows for N = 1, 2, 4 ... up to `most`. There is one pool per problem; `groups` gives the
    cluster of each pool."""
    sampled = [expected_best(pool, 1)[0] for pool in pools]
    rows: list[BestOfN] = []
    golds: dict[int, list[float]] = {}
    for n in powers_of_two(most):
        gold, proxy = zip(*(expected_best(pool, n) for pool in pools), strict=True)
        golds[n] = list(gold)
        rows.append(
            BestOfN(
                aggregate=aggregate,
                n=n,
                kl=kl_of_best_of_n(n),
                gold=share_estimate(gold, groups),
                uplift=mean_estimate([a - b for a, b in zip(gold, sampled, strict=True)], groups),
                proxy=share_estimate(proxy, groups),
            )
        )
    best = max(rows, key=lambda row: row.gold.value).n
    loss = [a - b for a, b in zip(golds[rows[-1].n], golds[best], strict=True)]
    return rows, OverOptimisation(
        aggregate=aggregate,
        best_n=best,
        last_n=rows[-1].n,
        last_minus_best=mean_estimate(loss, groups),
    )
