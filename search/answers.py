"""Choosing one answer among the finished solutions of a search.

- score: the solution with the largest `answer_value`, which combines the guidance value and the
  policy's likelihood.
- majority: the final answer that was proposed most often (self-consistency, 2203.11171).
- weighted_vote: every proposal votes for its final answer with its score as the weight. The final
  answer with the largest sum wins, and its solution with the largest `answer_value` is the answer
  (best-of-N weighted, 2408.03314, section 5.1).
- first: the first sample. This is plain sampling, or greedy decoding at temperature 0.
- oracle: a correct solution if there is one (pass@N). Only this rule sees the truth.
The earlier sample wins a tie, so nested subsets agree. Solutions drawn without replacement have
other votes than their number (search/votes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from data.types import Usage
from search.base import (
    Node,
    Session,
    Snapshot,
    answer_value,
    solution_ids,
    solution_logprob,
    solution_text,
)
from search.growth import continuation
from search.guidance import JUDGES, vote_shares
from search.votes import count_votes


def choose(
    nodes: Sequence[Node],
    candidates: Sequence[int],
    *,
    answer: str,
    likelihood_weight: float = 0.0,
    final_answer: Callable[[str], str],
    correct: Callable[[str], bool] | None = None,
) -> int:
    """Choose one of `candidates`, which are the ids of path ends in the order of sampling.

    There must be at least one candidate. All rules but `first` choose an unfinished path only when
    no candidate is a finished solution. A solution without a score comes after all solutions with a
    score. `final_answer` maps a solution text to the answer that it votes for. `correct` says
    whether a solution text is correct. Only the oracle needs it.
    """
    finished = [id for id in candidates if nodes[id].finished]
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
    answers = {id: final_answer(solution_text(nodes, id)) for id in candidates}
    votes = count_votes(nodes, answers, weighted=answer == "weighted_vote")
    elected = max(candidates, key=lambda id: votes[answers[id]])
    if answer != "weighted_vote":
        return elected
    same = [id for id in candidates if answers[id] == answers[elected]]
    return _best(nodes, same, likelihood_weight)


def choose_for(session: Session, nodes: Sequence[Node], candidates: Sequence[int]) -> int:
    """`choose` by the rules in the session's settings. The scores of the candidates are values of
    `choosing_guidance`, as `judge_solutions` gives them. With the guidance self_consistency, they
    are first set to the vote shares among the candidates."""
    if session.settings.choosing_guidance == "self_consistency":
        finished = [id for id in candidates if nodes[id].finished]
        for id, share in vote_shares(session, nodes, finished).items():
            nodes[id].score = share
    return _choose(session, nodes, candidates)


def _choose(session: Session, nodes: Sequence[Node], candidates: Sequence[int]) -> int:
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


class Answers:
    """Takes a tree's answer at each budget."""

    def __init__(self, session: Session, nodes: Sequence[Node]) -> None:
        self.session = session
        self.nodes = nodes
        self._completed: dict[int, tuple[str, bool, Usage]] = {}  # by the path's end
        self._judged: set[int] = set()  # the finished solutions that `answer_guidance` has judged

    async def take(self, budget: int, *, below: int = 0) -> Snapshot:
        """The answer among the finished solutions below node `below`.

        When there is none, the most promising open path is completed greedily. Only the usage of
        this snapshot includes the cost of the completion. A path is completed only once.
        """
        session, nodes = self.session, self.nodes
        inside = [node.id for node in nodes if node.finished and _is_below(nodes, node.id, below)]
        if inside:
            chosen = await self._choose(inside)
            return Snapshot(
                budget=budget,
                answer=solution_text(nodes, chosen),
                answer_node=chosen,
                truncated=False,
                usage=session.usage - session.beside,
            )
        leaf = below
        while nodes[leaf].children:
            leaf = max(
                nodes[leaf].children,
                key=lambda child: (nodes[child].visit_count, nodes[child].score or 0.0),
            )
        if leaf not in self._completed:
            self._completed[leaf] = await self._complete(leaf)
        answer, finished, cost = self._completed[leaf]
        spent = session.usage - session.beside
        return Snapshot(
            budget=budget,
            answer=answer,
            answer_node=None,
            truncated=not finished,
            usage=spent + cost,
        )

    async def _choose(self, inside: Sequence[int]) -> int:
        """The answer among finished solutions. With `answer_guidance`, the solutions that have no
        value of it yet are judged first. It becomes their `answer_score`, and their `score` stays
        as it is."""
        session, guidance = self.session, self.session.settings.answer_guidance
        if not guidance or not session.settings.needs_scores:
            return choose_for(session, self.nodes, inside)
        if new := [id for id in inside if id not in self._judged]:
            scores = await JUDGES[guidance](session, self.nodes, new)
            for id in new:
                self.nodes[id].answer_score = scores[id] if 0.0 <= scores[id] <= 1.0 else None
            self._judged.update(new)
        nodes = [replace(node, score=node.answer_score) for node in self.nodes]
        return _choose(session, nodes, inside)

    async def _complete(self, leaf: int) -> tuple[str, bool, Usage]:
        """Returns the path's text with its greedy completion, whether the solution is finished,
        and the cost of the completion."""
        session, path = self.session, solution_ids(self.nodes, leaf)
        if len(session.prompt_ids) + len(path) >= session.engine.context_length:
            return session.engine.decode(path), False, Usage()
        [completed] = await session.sample(
            [continuation(session, self.nodes, leaf, 1, whole=True, greedy=True)]
        )
        cost = Usage(policy=completed.usage)
        session.beside += cost
        sample = completed.samples[0]
        finished = sample.stop_reason.finished
        return session.engine.decode(path + sample.token_ids), finished, cost


def _is_below(nodes: Sequence[Node], id: int, ancestor: int) -> bool:
    while id > ancestor:
        id = nodes[id].parent
    return id == ancestor
