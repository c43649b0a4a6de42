"""Guidance: how paths get their values from reward models, the policy, functions or the verifier.

Every strategy calls `judge`, or `judge_solutions` if it needs values only to choose an answer.
`SearchSettings.guidance` selects the judge. Each judge is plain code that gives paths a value in
[0, 1]. Any other value is bad, and it never counts as 0: a finished solution then has no score, and
an open path ends there (`StopReason.BAD_SCORE`).

Sources: process reward (2305.20050); outcome reward (2110.14168); mean token probability
(2306.13063 calls it sequence likelihood); P(True) (2207.05221); self-consistency (2203.11171);
Monte Carlo success rates (2312.08935).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from data.types import StopReason
from rewards.aggregate import AGGREGATES
from rewards.heuristics import HEURISTICS
from search.base import (
    GUIDANCE_INDEX,
    ChoiceRequest,
    Node,
    ScoreRequest,
    Session,
    path_to,
    solution_ids,
    solution_text,
    step_end_positions,
    without_end,
)
from search.growth import continuation
from search.noise import uniform
from search.settings import JUDGE
from search.votes import count_votes

Scores = dict[int, float]  # node id -> score


async def judge(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> None:
    """Set the `score` of the nodes `ids`, which are ends of paths. A judge that gets the values of
    earlier steps at no extra cost also sets the scores that these steps do not have yet."""
    await _set_scores(session, nodes, ids, session.settings.guidance)


async def judge_solutions(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> None:
    """As `judge`, for a strategy that needs values only to choose an answer (`choose_for` in
    search/answers.py): `answer_guidance` takes the place of `guidance`."""
    await _set_scores(session, nodes, ids, session.settings.choosing_guidance)


async def _set_scores(
    session: Session, nodes: Sequence[Node], ids: Sequence[int], guidance: str
) -> None:
    if not ids:
        return
    scores = await JUDGES[guidance](session, nodes, ids)
    for id, score in scores.items():
        if 0.0 <= score <= 1.0:
            nodes[id].score = score
            if nodes[id].finished:
                session.best_score = max(session.best_score, score)
        elif id in ids:
            nodes[id].score = None
            nodes[id].bad_score = nodes[id].settled = True
            nodes[id].terminal = nodes[id].terminal or StopReason.BAD_SCORE


async def _process_rewards(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    """The reward model reads each path once and scores all of its steps. If the last step decides
    (`aggregate: last`), it is asked for the ends of nodes only: a whole solution has one score."""
    ends = [step_end_positions(session, nodes, id) for id in ids]
    if session.settings.aggregate == "last":
        ends = [[of_node[-1:] for of_node in by_node] for by_node in ends]
    results = await session.score(
        [
            ScoreRequest(
                node=id,
                sequence=session.prompt_ids + solution_ids(nodes, id),
                step_ends=tuple(end for of_node in by_node for end in of_node),
                prompt_length=len(session.prompt_ids),
            )
            for id, by_node in zip(ids, ends, strict=True)
        ]
    )
    aggregate = AGGREGATES[session.settings.aggregate]
    scores: Scores = {}
    for id, by_node, result in zip(ids, ends, results, strict=True):
        steps = 0
        for on_path, of_node in zip(path_to(nodes, id), by_node, strict=True):
            steps += len(of_node)
            if on_path == id or nodes[on_path].score is None:
                known = result.scores[:steps]
                valid = all(0.0 <= score <= 1.0 for score in known)
                scores[on_path] = aggregate(known) if valid else math.nan
    return scores


async def _outcome_reward(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    results = await session.score(_ends(session, nodes, ids))
    return {id: result.scores[0] for id, result in zip(ids, results, strict=True)}


async def _final_judge(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    results = await session.judge(_ends(session, nodes, ids))
    return {id: result.scores[0] for id, result in zip(ids, results, strict=True)}


def _ends(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> list[ScoreRequest]:
    """Requests for the score at the last token of each path."""
    sequences = [session.prompt_ids + solution_ids(nodes, id) for id in ids]
    return [
        ScoreRequest(
            node=id,
            sequence=sequence,
            step_ends=(len(sequence) - 1,),
            prompt_length=len(session.prompt_ids),
        )
        for id, sequence in zip(ids, sequences, strict=True)
    ]


async def _likelihood(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    return {
        id: math.exp(
            math.fsum(nodes[step].logprob for step in path_to(nodes, id))
            / len(solution_ids(nodes, id))
        )
        for id in _with_paths(nodes, ids)
    }


async def _entropy(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    return {
        id: math.exp(
            -math.fsum(nodes[step].entropy for step in path_to(nodes, id))
            / len(solution_ids(nodes, id))
        )
        for id in _with_paths(nodes, ids)
    }


async def _heuristic(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    function = HEURISTICS[session.settings.heuristic]
    return {
        id: function(session.problem, solution_text(nodes, id)) for id in _with_paths(nodes, ids)
    }


async def _random(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    return {
        id: uniform(session.engine.seed, session.problem.id, id, 0)
        for id in _with_paths(nodes, ids)
    }


def _with_paths(nodes: Sequence[Node], ids: Sequence[int]) -> list[int]:
    """`ids` and the earlier steps of their paths that have no score yet. Each id appears once."""
    found = dict.fromkeys(ids)
    for id in ids:
        found |= dict.fromkeys(step for step in path_to(nodes, id) if nodes[step].score is None)
    return list(found)


async def _self_evaluation(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    """P(yes) / (P(yes) + P(no)), from the first token of each answer. A path that leaves no room
    for the question in the context has no value (NaN).

    Raises ValueError when yes and no begin with the same token, or when one of them is empty.
    """
    engine, settings = session.engine, session.settings
    question = engine.encode(settings.question)
    yes, no = (engine.encode(text)[:1] for text in (settings.yes, settings.no))
    if yes == no or not yes or not no:
        raise ValueError(
            f"yes is {settings.yes!r} and no is {settings.no!r}; their first tokens must differ"
        )
    asked = {
        id: session.prompt_ids + without_end(session, solution_ids(nodes, id)) + question
        for id in ids
    }
    fitting = [id for id, prefix in asked.items() if len(prefix) <= engine.context_length]
    results = await session.choose(
        [ChoiceRequest(node=id, prefix=asked[id], options=yes + no) for id in fitting]
    )
    scores = dict.fromkeys(ids, math.nan)
    for id, result in zip(fitting, results, strict=True):
        total = sum(result.probabilities)
        scores[id] = result.probabilities[0] / total if total > 0 else math.nan
    return scores


async def _self_consistency(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    finished = [n.id for n in nodes if n.finished]
    scores = {id: s for id, s in vote_shares(session, nodes, finished).items() if id in ids}
    for id, texts in (await _rollouts(session, nodes, ids)).items():
        answers = Counter(session.final_answer(text) for text in texts)
        most = max(answers.values(), default=0)
        scores[id] = most / session.settings.guidance_rollouts
    return scores


def vote_shares(session: Session, nodes: Sequence[Node], candidates: Sequence[int]) -> Scores:
    """For each candidate, the share of all candidates' proposals that give the same final answer.

    The candidates are finished solutions. The shares change with every new solution. So they are
    computed again whenever an answer is chosen.
    """
    answers = {id: session.final_answer(solution_text(nodes, id)) for id in candidates}
    votes = count_votes(nodes, answers)
    total = math.fsum(votes.values())
    return {id: votes[answers[id]] / total for id in candidates}


async def _oracle(session: Session, nodes: Sequence[Node], ids: Sequence[int]) -> Scores:
    scores: Scores = {}
    for id in ids:
        if nodes[id].finished:
            verdict = session.verify(solution_text(nodes, id))
            nodes[id].verdict = verdict
            scores[id] = float(verdict.correct)
    for id, texts in (await _rollouts(session, nodes, ids)).items():
        correct = sum(session.verify(text).correct for text in texts)
        scores[id] = correct / session.settings.guidance_rollouts
    return scores


async def _rollouts(
    session: Session, nodes: Sequence[Node], ids: Sequence[int]
) -> dict[int, list[str]]:
    """Sample `guidance_rollouts` completions of each unfinished path of `ids`. Returns the texts of
    the finished solutions by node id."""
    n = session.settings.guidance_rollouts
    asked = [id for id in ids if nodes[id].terminal is None]
    if not asked:
        return {}
    results = await session.sample(
        [
            continuation(session, nodes, id, n, first_index=GUIDANCE_INDEX, whole=True)
            for id in asked
        ]
    )
    return {
        id: [
            session.engine.decode(solution_ids(nodes, id) + sample.token_ids)
            for sample in result.samples
            if sample.stop_reason.finished
        ]
        for id, result in zip(asked, results, strict=True)
    }


Judge = Callable[[Session, Sequence[Node], Sequence[int]], Awaitable[Scores]]
JUDGES: dict[str, Judge] = {
    "prm": _process_rewards,
    "outcome": _outcome_reward,
    "likelihood": _likelihood,
    "entropy": _entropy,
    "self_evaluation": _self_evaluation,
    "self_consistency": _self_consistency,
    "heuristic": _heuristic,
    "oracle": _oracle,
    "random": _random,
    JUDGE: _final_judge,
}
