"""Selection that knows what is left of the budget (BG-MCTS, 2602.09574).

The share u of the budget that is used, in [0, 1], changes the selection in three ways:
- The exploration term is multiplied by 1 - u.
- A child gets the bonus kappa x u x (mean depth of the nodes below and at it / depth of an answer).
  So a search with little budget left finishes what it has begun.
- The node itself competes with its best child for the next expansion (a "generative child"), with
  the value mean + lambda x (1 - u) x variance of its children's values. Expanding a shallow node
  again thus becomes rarer when the budget ends.

Departures from the paper: the exploration term is that of PUCT or UCT with the policy's priors, and
the value is the backed up Q instead of the mean score of all nodes below.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.base import Node, Session


def used_share(session: Session, simulations: int, budget: int) -> float:
    """The share of the budget that is used: of the simulations, or of the limits of tokens and
    FLOPs if more of these is used. Time does not count, because it depends on the machine."""
    settings, spent = session.settings, session.usage - session.beside
    shares = [simulations / budget]
    if settings.max_generated_tokens:
        shares.append(spent.policy.generated_tokens / settings.max_generated_tokens)
    if settings.max_flops:
        shares.append(spent.flops / settings.max_flops)
    return min(1.0, max(shares))


def completion(nodes: Sequence[Node]) -> dict[int, float]:
    """For each node in the tree: the mean depth of the nodes below and at it, divided by the depth
    of an answer. An answer's depth is the mean depth of the finished solutions. Without any, it is
    the depth of the deepest node. Depths count steps; the root has depth 0."""
    order: list[int] = []
    depths = {0: 0}
    stack = [0]
    while stack:
        node = nodes[stack.pop()]
        order.append(node.id)
        for child in node.children:
            depths[child] = depths[node.id] + 1
            stack.append(child)
    ends = [depth for id, depth in depths.items() if nodes[id].finished]
    answer = sum(ends) / len(ends) if ends else max(depths.values())
    sums = dict(depths)
    counts = dict.fromkeys(depths, 1)
    for id in reversed(order[1:]):  # children come after their parents
        sums[nodes[id].parent] += sums[id]
        counts[nodes[id].parent] += counts[id]
    return {id: sums[id] / counts[id] / max(1.0, answer) for id in depths}


def expansion_value(qs: Sequence[float], used: float, variance_weight: float) -> float:
    """The value of expanding a node again, from the values of its children: their mean +
    `variance_weight` x (1 - used) x their variance."""
    mean = sum(qs) / len(qs)
    variance = sum((q - mean) ** 2 for q in qs) / len(qs)
    return mean + variance_weight * (1 - used) * variance
