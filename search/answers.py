"""Choosing one answer among the finished solutions of a search.

- score: the best `answer_value`: guidance weighed with the policy's likelihood;
- majority: the final answer most often proposed (self-consistency, 2203.11171);
- weighted_vote: the final answer with the largest sum of scores, every proposal a vote, and of its
  solutions the best (best-of-N weighted, 2408.03314, section 5.1);
- first: the first sample: plain sampling, or greedy decoding at temperature 0;
- oracle: a correct solution if there is one: pass@N. It alone sees the truth.
Of equals the earlier sample wins, so nested subsets agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from data.types import StopReason, Usage
from search.base import (
    Node,
    SampleRequest,
    Session,
    Snapshot,
    answer_value,
    solution_ids,
    solution_logprob,
    solution_text,
)


def choose(
    nodes: Sequence[Node],
    candidates: Sequence[int],
    *,
    answer: str,
    likelihood_weight: float = 0.0,
    final_answer: Callable[[str], str],
    correct: Callable[[str], bool] | None = None,
) -> int:
    """One of `candidates` (ids of path ends, in the order they were sampled; not empty). Finished
    solutions come before all others, and scored ones before those without a score. `final_answer`
    maps a solution to what it votes for; only the oracle needs to know what is `correct`."""
    finished = [id for id in candidates if nodes[id].terminal is StopReason.END_OF_SOLUTION]
    if answer == "first":
        return candidates[0]
    candidates = finished or candidates
    if answer == "score":
        return _best(nodes, candidates, likelihood_weight)
    if answer == "oracle":
        assert correct is not None
        for id in finished:
            if correct(solution_text(nodes, id)):
                return id
    votes: defaultdict[str, float] = defaultdict(float)
    answers = {id: final_answer(solution_text(nodes, id)) for id in candidates}
    for id in candidates:
        weight = (nodes[id].score or 0.0) if answer == "weighted_vote" else 1.0
        votes[answers[id]] += weight * max(1, nodes[id].proposals)
    elected = max(candidates, key=lambda id: votes[answers[id]])
    if answer != "weighted_vote":
        return elected
    same = [id for id in candidates if answers[id] == answers[elected]]
    return _best(nodes, same, likelihood_weight)


def choose_for(session: Session, nodes: Sequence[Node], candidates: Sequence[int]) -> int:
    """`choose` as the session's settings have it."""
    return choose(
        nodes,
        candidates,
        answer=session.settings.answer,
        likelihood_weight=session.settings.likelihood_weight,
        final_answer=session.final_answer,
        correct=lambda text: session.verify(text).correct,
    )


def _best(nodes: Sequence[Node], candidates: Sequence[int], likelihood_weight: float) -> int:
    def value(id: int) -> tuple[bool, float]:
        score = nodes[id].score
        logprob = solution_logprob(nodes, id) if likelihood_weight else 0.0
        return score is not None, answer_value(score or 0.0, logprob, likelihood_weight)

    return max(candidates, key=value)


async def take_answer(
    session: Session,
    nodes: Sequence[Node],
    budget: int,
    *,
    completions: Usage,
    below: int = 0,
) -> tuple[Snapshot, Usage]:
    """The answer a tree gives at this budget, among the solutions that begin with node `below`.

    Without a finished one, the most promising open path is completed greedily. That is paid for by
    this snapshot only: `completions` is what earlier snapshots spent so, the second result that
    with this one's.
    """
    settings = session.settings
    finished = [n.id for n in nodes if n.terminal is StopReason.END_OF_SOLUTION]
    inside = [id for id in finished if _is_below(nodes, id, below)]
    if finished:
        chosen = choose_for(session, nodes, inside or finished)
        snapshot = Snapshot(
            budget=budget,
            answer=solution_text(nodes, chosen),
            answer_node=chosen,
            truncated=False,
            usage=session.usage - completions,
        )
        return snapshot, completions
    before = session.usage
    leaf = below
    while nodes[leaf].children:
        leaf = max(
            nodes[leaf].children,
            key=lambda child: (nodes[child].visit_count, nodes[child].score or 0.0),
        )
    path = solution_ids(nodes, leaf)
    finished_now, answer = False, session.engine.decode(path)
    if len(session.prompt_ids) + len(path) < session.engine.context_length:
        [completed] = await session.sample(
            [
                SampleRequest(
                    node=leaf,
                    prefix=session.prompt_ids + path,
                    n=1,
                    stop_at_step=False,
                    max_new_tokens=settings.max_new_tokens,
                    temperature=0.0,
                )
            ]
        )
        sample = completed.samples[0]
        finished_now = sample.stop_reason is StopReason.END_OF_SOLUTION
        answer = session.engine.decode(path + sample.token_ids)
    snapshot = Snapshot(
        budget=budget,
        answer=answer,
        answer_node=None,
        truncated=not finished_now,
        usage=session.usage - completions,
    )
    return snapshot, completions + (session.usage - before)


def _is_below(nodes: Sequence[Node], id: int, ancestor: int) -> bool:
    while id > ancestor:
        id = nodes[id].parent
    return id == ancestor
