"""How a tree search chooses a child: UCT, PUCT, and Gumbel sampling with sequential halving.

All functions are pure functions of nodes and numbers. All values are rewards of one player in
[0, 1], so no sign changes between levels. The docstrings name the equations of "Policy improvement
by planning with Gumbel" (Danihelka et al., ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.base import Node


def q_value(
    child: Node, *, score_weight: float = 0.0, max_backup: bool = False, first_play: float = 0.0
) -> float:
    """The child's value Q: the mean (with `max_backup` the largest) of its backed up values.

    In the mean, the child's score counts as `score_weight` visits with that value. Before the first
    visit, Q is the score, or `first_play` if there is no score. A virtual loss counts as a visit
    with value 0.
    """
    visits = child.visit_count + child.virtual_loss
    if not visits:
        return first_play if child.score is None else child.score
    if max_backup and child.visit_count:
        return child.value_max
    weight = 0.0 if child.score is None else score_weight
    return (child.value_sum + weight * (child.score or 0.0)) / (visits + weight)


def puct(child: Node, q: float, parent_visits: int, exploration: float) -> float:
    """Q + c P sqrt(N_parent) / (1 + N) (AlphaZero, 1712.01815)."""
    visits = child.visit_count + child.virtual_loss
    return q + exploration * child.prior * math.sqrt(parent_visits) / (1 + visits)


def uct(child: Node, q: float, parent_visits: int, exploration: float) -> float:
    """Q + c sqrt(ln N_parent / N) (Kocsis and Szepesvari 2006). Infinite before the first visit."""
    visits = child.visit_count + child.virtual_loss
    if not visits:
        return math.inf
    return q + exploration * math.sqrt(math.log(parent_visits) / visits)


def considered_visits(considered: int, simulations: int) -> list[int]:
    """The schedule of sequential halving (Karnin et al. 2013; Gumbel, section 3.2 and figure 1).

    The list has one entry per simulation. Simulation i takes a child of the root that has had
    `list[i]` simulations before. There are ceil(log2 considered) phases. In each phase, every
    remaining child gets floor(simulations / (phases x remaining children)) simulations, at least 1.
    After a phase, half of the children remain, at least 2.
    """
    if considered <= 1:
        return list(range(simulations))
    phases = math.ceil(math.log2(considered))
    wanted: list[int] = []
    had, left = 0, considered
    while len(wanted) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            wanted += [had] * left
            had += 1
        left = max(2, left // 2)
    return wanted[:simulations]


def perturbed_logits(probabilities: Sequence[float], dice: Sequence[float]) -> list[float]:
    """Sample g + log probability for each of several distinct draws, in the order of drawing.

    Drawing without replacement is the same as taking the actions in descending order of g + logits
    (the Gumbel top-k trick, 1903.06059). So the value of the k-th draw is a Gumbel variable that is
    truncated at the value of the draw before. Its location is the log of the probability that was
    left before the draw. `dice` are uniform in (0, 1).
    """
    perturbed: list[float] = []
    left, ceiling = 1.0, math.inf
    for probability, u in zip(probabilities, dice, strict=True):
        location = math.log(max(left, 1e-12))
        ceiling = location - math.log(math.exp(location - ceiling) - math.log(u))
        perturbed.append(ceiling)
        left -= probability
    return perturbed


def completed_q(
    children: Sequence[Node], qs: Sequence[float | None], raw_value: float | None
) -> list[float]:
    """`qs` with the mixed value (equation 33) in place of each unknown value (None).

    The mixed value is a weighted mean of the node's value `raw_value`, with weight 1, and of the
    prior-weighted mean of the known children, with all visits of the children as the weight. When
    `raw_value` is None, the mixed value is the mean of the known children alone.
    """
    known = [(c, q) for c, q in zip(children, qs, strict=True) if q is not None]
    mixed = 0.0 if raw_value is None else raw_value  # if no value is known, all get the same number
    if known:
        visits = sum(c.visit_count + c.virtual_loss for c in children)
        weight = math.fsum(c.prior for c, _ in known)
        mean = math.fsum(c.prior * q for c, q in known) / weight
        mixed = mean if raw_value is None else (raw_value + visits * mean) / (visits + 1)
    return [mixed if q is None else q for q in qs]


def rescaled(qs: Sequence[float]) -> list[float]:
    """The values of one node's children, moved and stretched to [0, 1].

    mctx does this before `sigma` (`qtransform_completed_by_mix_value`, rescale_values), and its
    constants c_visit 50 and c_scale 0.1 belong to such values. With process rewards that differ by
    0.1, sigma would otherwise weigh them less than the noise. Equal values all become 0.
    """
    low, width = min(qs), max(max(qs) - min(qs), 1e-8)
    return [(q - low) / width for q in qs]


def sigma(qs: Sequence[float], most_visits: int, c_visit: float, c_scale: float) -> list[float]:
    """sigma(q) = (c_visit + max_b N(b)) c_scale q, equation 8."""
    return [(c_visit + most_visits) * c_scale * q for q in qs]


def improved_policy(priors: Sequence[float], sigmas: Sequence[float]) -> list[float]:
    """pi' = softmax(logits + sigma(completed q)), equation 11."""
    logits = [math.log(max(p, 1e-12)) + s for p, s in zip(priors, sigmas, strict=True)]
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def interior_value(policy: float, visits: int, all_visits: int) -> float:
    """pi'(a) - N(a) / (1 + sum_b N(b)) (equation 14).

    Below the root, the search takes the child with the largest value. The visits then follow the
    improved policy without randomness.
    """
    return policy - visits / (1 + all_visits)
