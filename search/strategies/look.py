"""A look at a problem: a few cheap samples, and what they say of how hard the problem is.

A look answers like best of N, with a small N. Its `features_of` are what a router
(search/router.py) chooses the problem's strategy and budget from.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search.base import Node, ScoreRequest, SearchResult, Session
from search.settings import SearchSettings, check_budgets
from search.strategies.solutions import SolutionsConfig, search_solutions

FEATURES = (
    "prompt_value",  # the reward model's score at the end of the prompt
    "agreement",  # the share of the samples that give the most frequent final answer
    "weighted_agreement",  # the largest sum of scores of one final answer, over the samples
    "best_score",
    "mean_score",
    "finished",  # the share of the samples that are finished solutions
    "token_logprob",  # the mean log-probability per token, nats
)


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Few samples, answered like best of N, and the reward model's value of the prompt alone."""

    budgets: tuple[int, ...] = (4,)
    """Number of samples; one number."""
    prompt_value: bool = True
    """Score the prompt alone, with the guidances prm and outcome; false if the model reads text."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)


async def search_look(session: Session, config: LookConfig) -> SearchResult:
    """Sample, judge and choose as `search_solutions` does. The root's score is the prompt's."""
    value = math.nan
    if config.prompt_value and session.settings.guidance in ("prm", "outcome"):
        length = len(session.prompt_ids)
        [scored] = await session.score(
            [
                ScoreRequest(
                    node=0,
                    sequence=session.prompt_ids,
                    step_ends=(length - 1,),
                    prompt_length=length,
                )
            ]
        )
        value = scored.scores[0]
    result = await search_solutions(session, SolutionsConfig(budgets=config.budgets))
    result.nodes[0].score = value if 0.0 <= value <= 1.0 else None
    snapshot = replace(result.snapshots[-1], usage=session.usage)
    return replace(result, strategy="look", snapshots=(snapshot,))


def features_of(nodes: Sequence[Node], final_answer: Callable[[str], str]) -> tuple[float, ...]:
    """The values of `FEATURES` for the tree of a look. A value that is not known is 0, as are all
    values of a look that did not start."""
    samples = nodes[1:]
    finished = [node for node in samples if node.finished]
    votes: Counter[str] = Counter()
    weighted: defaultdict[str, float] = defaultdict(float)
    for node in finished:
        answer = final_answer(node.text)
        votes[answer] += 1
        weighted[answer] += node.score or 0.0
    scores = [node.score or 0.0 for node in finished]
    n, tokens = max(1, len(samples)), sum(len(node.token_ids) for node in samples)
    return (
        nodes[0].score or 0.0,
        max(votes.values(), default=0) / n,
        max(weighted.values(), default=0.0) / n,
        max(scores, default=0.0),
        math.fsum(scores) / n,
        len(finished) / n,
        math.fsum(node.logprob for node in samples) / max(1, tokens),
    )


def continues_look(
    config: Any, settings: SearchSettings, look: LookConfig, look_settings: SearchSettings
) -> bool:
    """Whether a search is a best of N whose first round is the look: it then goes on with the
    look's samples and pays only for the others. Its rounds must have the look's size, and its
    settings must be the look's, apart from `stop_score`."""
    return (
        isinstance(config, SolutionsConfig)
        and config.round_size == look.budgets[0] < config.budgets[-1]
        and replace(settings, stop_score=0.0) == replace(look_settings, stop_score=0.0)
    )
