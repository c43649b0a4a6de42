"""Particle filtering over reasoning steps (Puri et al., 2502.01618, algorithm 1).

The granularity is the step. In each round, N particles each take one step from the policy. The
guidance gives each particle a weight, and the particles are resampled by weight. Promising paths
are continued more often, but the choice stays random. A wrong score therefore does not always end
a path, as it does in beam search.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from search.answers import Answers
from search.base import Node, SearchEnd, SearchResult, Session, finish
from search.growth import add_sample, continuation, new_tree
from search.guidance import judge
from search.noise import uniform
from search.settings import check_budgets

WEIGHTINGS = ("odds", "ratio")


@dataclass(frozen=True, kw_only=True)
class ParticleConfig:
    """How particles are weighted and resampled.

    Let p be the value of a particle's path. With `weighting` odds, the weight is
    (p / (1 - p))^(1 / `sharpness_temperature`). This is the softmax of the reward's logits, as in
    the paper. With ratio, the weight is the ratio of p to the value one step earlier, to the same
    power. This is the incremental weight of sequential Monte Carlo, with which the distribution of
    the particles follows policy x value. These weights are multiplied over the steps until the
    particles are resampled. Resampling is systematic.
    """

    budgets: tuple[int, ...] = (16,)
    """Number of particles N; one number only, as another N needs another search."""
    weighting: str = "odds"
    """How the value of a path becomes the weight of its particle: odds or ratio."""
    sharpness_temperature: float = 1.0
    """Temperature of the weights, above 0; a smaller temperature favours good paths more."""
    resample_below: float = 1.0
    """Resample when the effective sample size is at most this share of N; 0 to 1."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {self.weighting!r}; allowed: {', '.join(WEIGHTINGS)}")
        if self.sharpness_temperature <= 0:
            raise ValueError(
                f"sharpness_temperature is {self.sharpness_temperature}; it must be above 0"
            )
        if not 0 <= self.resample_below <= 1:
            raise ValueError(f"resample_below is {self.resample_below}; it must be in [0, 1]")


async def search_particles(session: Session, config: ParticleConfig) -> SearchResult:
    """Step, weigh and resample until every particle is finished."""
    [n] = config.budgets
    nodes = new_tree()
    particles = [0] * n
    logs = [0.0] * n  # log weights
    drawn: Counter[int] = Counter()
    round = 0
    end = session.exhausted()
    while end is None and any(nodes[id].terminal is None for id in particles):
        before = list(particles)
        particles = await _step(session, nodes, particles, drawn)
        if config.weighting == "odds":
            logs = [_log_odds(nodes[id]) / config.sharpness_temperature for id in particles]
        else:
            increments = [
                0.0 if id == old else _log_ratio(nodes[id], nodes[old])
                for id, old in zip(particles, before, strict=True)
            ]
            logs = _added(logs, [x / config.sharpness_temperature for x in increments])
        weights = normalised(logs)
        if weights is None:  # all particles have the weight 0: keep all of them
            logs = [0.0] * n
        elif 1 / math.fsum(w * w for w in weights) <= config.resample_below * n:
            dice = uniform(session.engine.seed, session.problem.id, 0, round)
            particles = [particles[i] for i in systematic(weights, dice)]
            logs = [0.0] * n
        round += 1
        end = session.exhausted()
    snapshot = await Answers(session, nodes).take(n)
    return finish(session, "particles", nodes, [snapshot], end or SearchEnd.COMPLETE)


async def _step(
    session: Session, nodes: list[Node], particles: Sequence[int], drawn: Counter[int]
) -> list[int]:
    """Move each open particle one step further. Particles at the same node share one request."""
    here = Counter(id for id in particles if nodes[id].terminal is None)
    first_new = len(nodes)
    results = await session.sample(
        [
            continuation(session, nodes, id, count, first_index=drawn[id])
            for id, count in here.items()
        ]
    )
    ends: dict[int, list[int]] = {}
    for id, result in zip(here, results, strict=True):
        nodes[id].expansions += 1
        drawn[id] += here[id]
        ends[id] = [add_sample(session, nodes, id, sample) for sample in result.samples]
    new = nodes[first_new:]
    for node in new:
        if node.cut_off:
            node.score = 0.0  # the path was cut off, so it has no answer
    await judge(session, nodes, [node.id for node in new if node.score is None])
    return [ends[id].pop(0) if id in ends else id for id in particles]


def _log_odds(node: Node) -> float:
    """log(p / (1 - p)) of the node's score p. -inf when the score is 0 or when there is none."""
    if not node.score:
        return -math.inf
    return math.log(node.score) - math.log(max(1 - node.score, 1e-12))


def _log_ratio(node: Node, parent: Node) -> float:
    """log(score / score of the parent). -inf when the score is 0 or when there is none.

    The root has no score, so the ratio of a first step is its score.
    """
    if not node.score:
        return -math.inf
    return math.log(node.score) - math.log(parent.score or 1.0)


def _added(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(first, second, strict=True)]


def normalised(logs: Sequence[float]) -> list[float] | None:
    """The weights with the given logarithms, scaled to the sum 1. None when all weights are 0."""
    top = max(logs)
    if top == -math.inf:
        return None
    weights = [math.exp(x - top) for x in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def systematic(weights: Sequence[float], dice: float) -> list[int]:
    """Draw n indices by systematic resampling with one random number `dice` in (0, 1).

    n is the number of weights, which sum to 1. Index i appears floor(n x weights[i]) or
    ceil(n x weights[i]) times. The indices are in ascending order (Douc and Cappe 2005).
    """
    n = len(weights)
    chosen: list[int] = []
    cumulative, i = weights[0], 0
    for k in range(n):
        point = (k + dice) / n
        while cumulative < point and i < n - 1:
            i += 1
            cumulative += weights[i]
        chosen.append(i)
    return chosen
