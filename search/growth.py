"""Growing a tree: requests for continuations of a path, and new nodes made from the samples.

A sample is cut into steps. Identical siblings become one node, and the priors are updated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data.types import Sample, StopReason
from search.base import Node, SampleRequest, Session, path_to, solution_ids

PRIORS = ("count", "sequence", "uniform")


def new_tree() -> list[Node]:
    """A tree that has only the root, node 0."""
    return [Node(id=0, parent=-1, token_ids=(), text="")]


def continuation(
    session: Session,
    nodes: Sequence[Node],
    at: int,
    n: int,
    *,
    first_index: int = 0,
    whole: bool = False,
    greedy: bool = False,
) -> SampleRequest:
    """A request for `n` continuations of the path to node `at`.

    A continuation is one step, or with `whole` the rest of a solution. `greedy` samples at
    temperature 0 instead of at the temperature in the settings.
    """
    settings = session.settings
    return SampleRequest(
        node=at,
        prefix=session.prompt_ids + solution_ids(nodes, at),
        n=n,
        first_index=first_index,
        stop_at_step=not whole,
        max_new_tokens=settings.max_new_tokens if whole else settings.max_step_tokens,
        temperature=0.0 if greedy else settings.temperature,
    )


def add_solution(session: Session, nodes: list[Node], sample: Sample, *, revises: int = -1) -> Node:
    """Add a whole solution as one node below the root. Equal solutions get separate nodes."""
    node = Node(
        id=len(nodes),
        parent=0,
        token_ids=sample.token_ids,
        text=session.engine.decode(sample.token_ids),
        proposals=1,
        logprob=sample.logprob,
        entropy=math.fsum(sample.step_entropies),
        terminal=sample.stop_reason,
        revises=revises,
    )
    nodes.append(node)
    nodes[0].children.append(node.id)
    return node


def add_sample(
    session: Session,
    nodes: list[Node],
    at: int,
    sample: Sample,
    *,
    priors: str = "count",
    rollout: bool = False,
    beside: bool = False,
) -> int:
    """Add the steps of the sample below node `at`. Returns the id of the node where it ends.

    A step becomes the same node as an existing sibling when both have the same token ids and the
    same `terminal`. So a step after which the sample was cut off gets a separate node. An
    unfinished path ends at `max_depth` (`StopReason.DEPTH`). A `rollout` may go deeper, but no
    search descends below `max_depth`. With `beside`, the first step is no child of `at` (see
    `Node`).
    """
    start = 0
    depth = len(path_to(nodes, at))
    step_ends = session.engine.step_ends(sample.token_ids)
    for index, end in enumerate(step_ends):
        last = end == step_ends[-1] and sample.stop_reason != StopReason.STEP_END
        deepest = depth + index + 1 >= session.settings.max_depth
        terminal = sample.stop_reason if last else None
        if terminal is None and deepest and not rollout:
            terminal = StopReason.DEPTH
        step = sample.token_ids[start : end + 1]
        linked = not (beside and index == 0)
        siblings = [nodes[child] for child in nodes[at].children] if linked else []
        same = (terminal, StopReason.BAD_SCORE if terminal is None else terminal)
        child = next((n for n in siblings if n.token_ids == step and n.terminal in same), None)
        if child is None:
            child = Node(
                id=len(nodes),
                parent=at,
                token_ids=step,
                text=session.engine.decode(step),
                logprob=sample.step_logprobs[index],
                entropy=sample.step_entropies[index],
                terminal=terminal,
                settled=terminal is not None or deepest,
            )
            nodes.append(child)
            siblings.append(child)
            if linked:
                nodes[at].children.append(child.id)
        child.proposals += 1
        set_priors(siblings, priors)
        at, start = child.id, end + 1
    return at


def set_priors(siblings: Sequence[Node], kind: str) -> None:
    """Set the priors of all siblings by one of three rules. The priors of siblings sum to 1.

    - count: a step's share of all proposals, for independent proposals (Sampled MuZero, 2104.06303,
      section 5).
    - sequence: the policy's probability of the step at temperature 1, renormalised over the
      distinct steps, for proposals without replacement.
    - uniform: equal priors, for control experiments.

    Raises ValueError for the rule sequence where the engine gives no log-probabilities.
    """
    if kind == "sequence":
        if any(math.isnan(node.logprob) for node in siblings):
            raise ValueError("priors is 'sequence', but the engine gives no log-probabilities")
        top = max(node.logprob for node in siblings)
        weights = [math.exp(node.logprob - top) for node in siblings]
    elif kind == "count":
        weights = [float(node.proposals) for node in siblings]
    else:
        weights = [1.0] * len(siblings)
    total = math.fsum(weights)
    for node, weight in zip(siblings, weights, strict=True):
        node.prior = weight / total
