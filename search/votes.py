"""Votes of finished solutions for their final answers, and when they cannot change any more.

A solution votes as often as it was proposed. When solutions are drawn without replacement, each is
proposed once, and its probability is known. Its vote then estimates how often the policy gives it:
the threshold estimator of Kool et al. (1903.06059, equation 12) gives solution i the vote
p_i / (1 - exp(-p_i / t)). Votes are then nearly equal when all solutions are improbable, as if they
were sampled independently, and equal to the probabilities when all solutions were drawn. In the
paper the threshold t is random. Here it is the one at which the votes of all drawn solutions add up
to 1, so that votes need no dice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from search.base import Node, Session, answer_value, solution_logprob, solution_text

HALVINGS = 60  # of the interval of the threshold


def count_votes(
    nodes: Sequence[Node], answers: Mapping[int, str], *, weighted: bool = False
) -> dict[str, float]:
    """The sum of the votes per final answer. `answers` has the final answer of each candidate, by
    its node. `weighted` multiplies each vote by the score of its solution."""
    drawn = [node for node in nodes if node.terminal is not None and node.mass is not None]
    weights = threshold_votes([node.mass or 0.0 for node in drawn])
    of_drawn = {node.id: weight for node, weight in zip(drawn, weights, strict=True)}
    votes: defaultdict[str, float] = defaultdict(float)
    for id, answer in answers.items():
        vote = of_drawn.get(id, float(max(1, nodes[id].proposals)))
        votes[answer] += vote * ((nodes[id].score or 0.0) if weighted else 1.0)
    return votes


def threshold_votes(probabilities: Sequence[float]) -> list[float]:
    """The votes of all distinct solutions that were drawn, in their order (see the docstring of
    this module). They add up to 1, and no vote is smaller than its probability."""
    known = math.fsum(probabilities)
    if not probabilities or known >= 1:
        return list(probabilities)
    # The vote lies between t and p + t, so their sum is 1 for a threshold inside this interval.
    low, high = (1 - known) / len(probabilities), 1 / len(probabilities)
    for _ in range(HALVINGS):
        threshold = (low + high) / 2
        if math.fsum(_vote(p, threshold) for p in probabilities) > 1:
            high = threshold
        else:
            low = threshold
    return [_vote(p, low) for p in probabilities]


def _vote(probability: float, threshold: float) -> float:
    chance = -math.expm1(-probability / threshold)  # that the solution is among the drawn ones
    return max(probability, probability / chance) if chance > 0 else threshold


def is_settled(session: Session, nodes: Sequence[Node], *, left: float) -> bool:
    """Whether solutions to come cannot change the final answer of the finished solutions, whose
    scores are values of `choosing_guidance`.

    `left` is the largest sum of votes that the solutions to come can have: their number, or the
    probability that is left to draw. No score is above 1. For the answer `score` the probability is
    used, at temperature 1 alone: no solution to come has a larger `answer_value` than
    likelihood_weight x log left. The text of the answer may change when it stays equal as an
    answer. Always false for the answers first and oracle.
    """
    settings = session.settings
    finished = [node.id for node in nodes if node.finished]
    without_replacement = any(nodes[id].mass is not None for id in finished)
    if settings.answer in ("majority", "weighted_vote"):
        answers = {id: session.final_answer(solution_text(nodes, id)) for id in finished}
        # The scores of self_consistency rank answers as their numbers of votes do.
        by_shares = settings.choosing_guidance == "self_consistency"
        weighted = settings.answer == "weighted_vote" and not by_shares
        votes = (_sure_votes if without_replacement else count_votes)(
            nodes, answers, weighted=weighted
        )
        first, second = ([*sorted(votes.values(), reverse=True), 0.0, 0.0])[:2]
        return first - second > left
    if settings.answer == "score" and without_replacement and settings.temperature == 1:
        weight = settings.likelihood_weight
        scored = [id for id in finished if nodes[id].score is not None]
        values = [
            answer_value(nodes[id].score or 0.0, solution_logprob(nodes, id), weight)
            for id in scored
        ]
        return bool(values) and weight > 0 and max(values) > weight * math.log(max(left, 1e-300))
    return False


def _sure_votes(
    nodes: Sequence[Node], answers: Mapping[int, str], *, weighted: bool
) -> dict[str, float]:
    """The votes of solutions drawn without replacement when each counts its probability alone.

    A lead of more than the probability that is left is a lead for ever: no vote is smaller than its
    probability, the votes add up to 1, and so all votes together exceed these by what is left."""
    votes: defaultdict[str, float] = defaultdict(float)
    for id, answer in answers.items():
        votes[answer] += (nodes[id].mass or 0.0) * ((nodes[id].score or 0.0) if weighted else 1.0)
    return votes
