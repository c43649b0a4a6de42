"""Particle filtering over reasoning steps (Puri et al., 2502.01618, algorithm 1).

Granularity: step. N particles each take one step from the policy, are weighted by the guidance, and
are resampled by weight, so that promising paths are continued more often while the choice stays
random: a mistaken score does not end a path for good, as it does in a beam.
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

    With `weighting` odds, a weight is (p / (1 - p))^(1 / `sharpness_temperature`), p the path's
    value: the softmax of the reward's logits, as in the paper. With ratio, it is p over the value
    one step earlier, to the same power: sequential Monte Carlo's incremental weight, with which the
    particles follow policy x value. Weights multiply until particles are resampled, systematically.
    """

    budgets: tuple[int, ...] = (16,)
    """Numbers of particles N; each needs a search of its own."""
    weighting: str = "odds"
    """How a particle's weight follows from its path's value: odds or ratio."""
    sharpness_temperature: float = 1.0
    """Temperature of the weights, above 0; smaller values favour good paths more."""
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
        if weights is None:  # no particle is worth anything: go on with all of them
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
    """Each open particle one step further; particles at one node share a request."""
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
            node.score = 0.0  # cut off: it can have no answer
    await judge(session, nodes, [node.id for node in new if node.score is None])
    return [ends[id].pop(0) if id in ends else id for id in particles]


def _log_odds(node: Node) -> float:
    """-inf for a path that is worth nothing or of which nothing is known."""
    if not node.score:
        return -math.inf
    return math.log(node.score) - math.log(max(1 - node.score, 1e-12))


def _log_ratio(node: Node, parent: Node) -> float:
    """The root has no value of its own: the first step's weight is its value."""
    if not node.score:
        return -math.inf
    return math.log(node.score) - math.log(parent.score or 1.0)


def _added(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(first, second, strict=True)]


def normalised(logs: Sequence[float]) -> list[float] | None:
    """Weights that sum to 1 from their logarithms; None when all are 0."""
    top = max(logs)
    if top == -math.inf:
        return None
    weights = [math.exp(x - top) for x in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def systematic(weights: Sequence[float], dice: float) -> list[int]:
    """Indices drawn by systematic resampling with one number in (0, 1): index i comes floor or ceil
    of n x weights[i] times, in ascending order (Douc and Cappe 2005)."""
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
